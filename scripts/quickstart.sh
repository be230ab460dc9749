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

cat <<END

Done in $((SECONDS - start)) s. What to type next:

  $skdtune dashboard                        look at the trials in the browser
  $skdtune create-study cifar100-dsr        define a real study (downloads CIFAR-100 at first use)
  $skdtune launch cifar100-dsr --gpus all   train it, one worker per GPU
END
