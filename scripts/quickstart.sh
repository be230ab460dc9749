#!/usr/bin/env bash
# A first search, start to end: plain cross-entropy and DRG + DSR on scikit-learn's digits, with
# the same number of trials each. Run it with `make quickstart`, or with `skdtune` on the PATH.
set -euo pipefail

skdtune="${SKDTUNE:-skdtune}"
trials="${SKDTUNE_QUICKSTART_TRIALS:-24}"

run() {
    printf '\n$ %s %s\n' "$skdtune" "$*"
    "$skdtune" "$@"
}

start=$SECONDS
for study in digits-baseline digits-drg-dsr; do
    run create-study "$study" --trials "$trials"
    run launch "$study" --workers 2
done
run best digits-drg-dsr --against digits-baseline

# A study of CIFAR-100 takes a GPU; what is for the CPU compares all methods on the digits.
if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    next=cifar100-dsr what="a real study (downloads CIFAR-100 at first use)" who="one worker per GPU"
else
    next=digits-compare what="one study for each method" who="one worker per core"
fi

cat <<END

Done in $((SECONDS - start)) s. What to type next:

  $skdtune dashboard                     look at the trials in the browser
  $skdtune create-study $next   define $what
  $skdtune launch $next         train, $who
END
