#!/bin/sh
# Makes the images of the examples from Debian's own packages and puts them among berth's; no registry is needed.
# usage: images.sh BERTH CACHE_FOLDER
set -eu
berth=$1 cache=$2
mkdir -p "$cache"

# image NAME PACKAGES USER_ENTRY ENTRYPOINT
image() {
    archive=$cache/$1.tar
    if [ ! -f "$archive" ]; then
        echo "image $1: from Debian's packages ($2)"
        mmdebstrap --quiet --format=tar --variant=extract --include="$2" --skip=output/dev \
            --extract-hook="printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' '$3' > \"\$1/etc/passwd\"" \
            bookworm "$archive.part"
        mv "$archive.part" "$archive"
    fi
    "$berth" image import "$archive" "berth.example/$1:1" --entrypoint "$4"
}

image web nginx-light www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin /usr/sbin/nginx
image database redis-server redis:x:100:100:redis:/var/lib/redis:/usr/sbin/nologin /usr/bin/redis-server
