#!/bin/sh
# Leaves the machine as it was before up.sh.
# usage: down.sh FOLDER_OF_BERTH
set -eu
"$1/berth" down --purge
rm -rf /var/lib/berth-example
