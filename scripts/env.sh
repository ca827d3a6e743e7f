# Sourced by the scripts beside it, from the top of the checkout.
PATH="$PWD/node_modules/.bin:$PATH"

# node-gyp downloads Node's headers unless npm_config_nodedir is set: packages and tarballs of Node
# bring them along, beside the binary.
if [ -z "${npm_config_nodedir:-}" ]; then
  node_prefix=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
  if [ -e "$node_prefix/include/node/node_api.h" ]; then
    export npm_config_nodedir="$node_prefix"
  fi
fi

# How many compilers node-gyp and make run at once.
export JOBS="${JOBS:-2}"

# changed_since STAMP PATH...: is any of these files or folders newer than the stamp? A folder is
# newer when a file in it was added, renamed or removed.
changed_since() {
  local stamp=$1
  shift
  [ ! -e "$stamp" ] || [ -n "$(find "$@" -newer "$stamp" -print -quit)" ]
}
