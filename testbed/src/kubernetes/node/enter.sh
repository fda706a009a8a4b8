# Gives a process the files of its pod: mounts of its own, over a machine that stays as it is. Arguments: the image's
# program, pairs of a directory and where the process is to see it, `--`, and the command.
set -e
program=$1
shift
# What the process needs has to lie where every user may go.
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/bin
touch "/mnt/bin/${program##*/}"
mount --bind "$program" "/mnt/bin/${program##*/}"
layers=0
while [ "$1" != -- ]; do
    if ! [ -d "$2" ]; then
        over=${2%/*}
        while [ "$over" ] && ! [ -d "$over" ]; do over=${over%/*}; done
        if ! [ "$over" ]; then
            echo "no directory of this machine lies above $2" >&2
            exit 1
        fi
        # Not made on the machine, but in a layer over it; once, because layers over layers are limited.
        case "$layered" in
        *" $over "*) ;;
        *)
            layers=$((layers + 1))
            mkdir -p "/mnt/$layers/upper" "/mnt/$layers/work"
            mount -t overlay -o "lowerdir=$over,upperdir=/mnt/$layers/upper,workdir=/mnt/$layers/work" overlay "$over"
            layered="$layered $over "
            ;;
        esac
        mkdir -p "$2"
    fi
    mount --bind "$1" "$2"
    mount -o remount,bind,ro "$2"
    shift 2
done
shift
exec "$@"
