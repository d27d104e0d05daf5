#!/bin/sh
# Puts the built book on the branch that serves the pages, as one commit without a history: what is there can be
# built again from main. Needs nothing but git, and the right to push to origin.
set -eu
cd "$(dirname "$0")/../.."
site=_build/html
test -f $site/index.html || { echo "No book here yet: run make book first." >&2; exit 1; }
branch=$(sed -n 's/^  branch: *\([^ ]*\).*/\1/p' _config.yml)
index=$(mktemp -d)
trap 'rm -rf "$index"' EXIT
export GIT_INDEX_FILE="$index/index" GIT_DIR="$(git rev-parse --absolute-git-dir)"
git --work-tree=$site add --all --force .
tree=$(git write-tree)
commit=$(git commit-tree "$tree" -m "The book, built from $(git describe --always --tags)")
git push --quiet --force origin "$commit:refs/heads/$branch"
echo "The book is on the branch $branch of $(git remote get-url origin | sed 's#//[^/@]*@#//#')."
