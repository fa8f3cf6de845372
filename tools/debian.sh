# Making trees of Debian's packages, for tests/vm/build-image, tests/support/make-debian-tree and make-vm-kernel. Sourced,
# after tools/steps.sh.
# shellcheck shell=bash

# kernel_package DIRECTORY: the file of Debian's newest kernel in there, which is fetched when it is missing. Only the flavour
# of real machines: the one for clouds has no 9p.
kernel_package() {
  local name file
  name=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1)
  [[ -n $name ]] || fail "apt knows no kernel package linux-image-amd64"
  mkdir -p "$1"
  exec 8>"$1/lock"
  flock 8 # two runs at once fetch it once
  file=$(find "$1" -name "${name}_*.deb" | head -1)
  if [[ -z $file ]]; then
    # As apt's own user it may not write here.
    (cd "$1" && run apt-get -o APT::Sandbox::User=root download "$name" >&2)
    file=$(find "$1" -name "${name}_*.deb" | head -1)
  fi
  exec 8>&-
  echo "$file"
}

# debian_tree TARGET SOURCES NAME...: with mmdebstrap, from the sources that this machine's apt has, which are written to
# SOURCES (a name in .list). TARGET ends in .tar or is a directory. Without manuals, locales and documentation.
debian_tree() {
  local target=$1 sources=$2 release option options=()
  shift 2
  # shellcheck disable=SC1091  # the host's
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  # One line each, and how this machine reaches them (proxies, old snapshots).
  # shellcheck disable=SC2016  # apt's own variables
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    grep -E " $release" | sort -u >"$sources"
  [[ -s $sources ]] || fail "apt of this machine has no source of Debian $release"
  while read -r option; do options+=("--aptopt=$option"); done < <(
    apt-config dump | grep -E '^Acquire::(Check-Valid-Until|Check-Date|Retries|https?::Proxy)' || true
  )
  run mmdebstrap --mode=root --variant=minbase --include="$(IFS=, && echo "$*")" --aptopt='Acquire::Languages "none"' \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' "${options[@]}" "$release" "$target" "$sources"
}
