#!/bin/sh
# The main job on real input: a cluster of one machine, the examples on it, and what they answer.
# usage: up.sh FOLDER_OF_BERTH CACHE_FOLDER
set -eu
here=$(dirname "$0") bin=$1 cache=$2
berth=$bin/berth

say() { printf '\n== %s\n' "$*"; }

say "Images of a web server and a database"
"$here/images.sh" "$berth" "$cache"

say "A master and a node on this machine"
"$berth" up --detach
export KUBECONFIG=/var/lib/berth/master/admin.kubeconfig

say "The examples"
kubectl apply -f "$here/manifests"
kubectl wait --for=condition=Ready pod/database pod/web --timeout=60s

say "What runs"
kubectl get nodes,pods -o wide
"$berth" ps

say "What the web pod answers"
address=$(kubectl get pod web -o jsonpath='{.status.podIP}')
curl --fail --silent --show-error --max-time 5 "http://$address:8080/"

say "Yours now"
cat <<END
  export KUBECONFIG=$KUBECONFIG
  kubectl get pods                 (as root: the file is root's)
  sudo make down                   leaves the machine as it was
END
