#!/usr/bin/env bash
# Makes the source package and from it the wheel, installs the wheel with pinned dependencies into a
# clean environment, and uses it from a folder that is not the checkout.
#   PYTHON=python3.12 tests/check_wheel.sh [ENVIRONMENT]
# ENVIRONMENT is kept for whatever comes next; left out: it goes when the check ends.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
scratch="$(mktemp -d)"
environment="$(realpath -m "${1:-$scratch/venv}")"
if [ -e "$environment" ]; then
  echo "$environment is there already: the wheel needs a clean environment" >&2
  exit 1
fi
trap 'rm -rf "$scratch"' EXIT
unset PYTHONPATH ETHORAY_HOME RAY_ADDRESS PYTHONDONTWRITEBYTECODE
export ETHORAY_CACHE="$scratch/cache" RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
step() { echo "== $* ($SECONDS s)"; }

step "source package and wheel"
"${PYTHON:-python3}" -m venv "$environment"
bin="$environment/bin"
pip() { "$bin/python" -m pip -qq --disable-pip-version-check "$@"; }
mkdir "$scratch/source" "$scratch/elsewhere"
(cd "$root" && git ls-files -z --cached --others --exclude-standard \
  | xargs -0 cp --parents --target-directory "$scratch/source")
pip install -c "$root/constraints.txt" "setuptools>=77"
(cd "$scratch/source" && "$bin/python" -c \
  "from setuptools import build_meta; build_meta.build_sdist('$scratch')" >/dev/null 2>&1)
pip wheel --no-deps --no-build-isolation --wheel-dir "$scratch" "$scratch"/ethoray-*.tar.gz
rm -rf "$scratch/source"

step "a clean environment"
# torch comes first and alone, by its pin: nothing that is installed later can then choose another.
pip install --no-compile -c "$root/constraints.txt" torch
pip install --no-compile -c "$root/constraints.txt" "$scratch"/ethoray-*.whl
pip check
# pip would compile on one core; some packages hold files of other Pythons
"$bin/python" -m compileall -qq -j 0 "$environment/lib" || true

cd "$scratch/elsewhere"
ethoray="$bin/ethoray"

step "every command's help"
for name in $("$ethoray" --help | sed -n '/^commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p'); do
  "$ethoray" "$name" --help | grep --quiet "^usage: ethoray $name"
done

step "a store, and what a run would be"
"$ethoray" prepare arena --out store --frames 15000 >/dev/null 2>&1
"$ethoray" prepare check store >/dev/null 2>&1
for recipe in quickstart paper_task_programming; do
  "$ethoray" pretrain --recipe "$recipe" --scale single_node --data store --dry-run >/dev/null
done
"$ethoray" reproduce --list >/dev/null

step "a small run of each kind"
"$ethoray" pretrain --recipe quickstart --data store --out run --set epochs=1 >/dev/null 2>log \
  || { cat log; exit 1; }
"$ethoray" finetune --encoder run --task classic_classification --data store --out tuned \
  --trials 1 --seeds 1 --set steps=5 >/dev/null 2>log || { cat log; exit 1; }
"$ethoray" predict --model tuned --poses store --out labelled >/dev/null 2>log \
  || { cat log; exit 1; }

step "import ethoray"
"$bin/python" - <<'PYTHON'
import ethoray

assert "site-packages" in ethoray.__file__, ethoray.__file__
store = ethoray.open_store("store")
video = store.read_video(store.videos[0]["name"])
encoder = ethoray.load_encoder("run")
z_TD = encoder.embed(video.position_TMKX, video.confidence_TMK)
assert z_TD.shape == (len(video.position_TMKX), encoder.dim)
labels_T, p_TC = ethoray.load_model("tuned").predict(video.position_TMKX, video.confidence_TMK)
assert len(labels_T) == len(p_TC) == len(z_TD)
PYTHON
step "the wheel works: $("$bin/python" --version)"
