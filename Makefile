# `make train` and `make test` work on a fresh machine: both create .venv and install into it first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := runs/quickstart
BENCH := runs/bench
VERSIONS := .versions
# One process, on any device. All values are given, so accelerate's own config file doesn't matter.
LAUNCH := $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no

# Idle OpenMP threads stop spinning soon: tests run several processes on few cores.
export GOMP_SPINCOUNT ?= 3000

.PHONY: install train test test-all test-long test-versions test-demo test-gpu bench check clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

train: install
	$(LAUNCH) -m colordist.train --config configs/quickstart_ae.yaml --run.dir $(RUNS)/ae
	$(LAUNCH) -m colordist.train --config configs/quickstart_cgan.yaml --run.dir $(RUNS)/cgan
	$(LAUNCH) -m colordist.train --config configs/quickstart_flow.yaml --run.dir $(RUNS)/flow
	$(BIN)/python -m colordist.report $(RUNS)/ae $(RUNS)/cgan $(RUNS)/flow -o $(RUNS)/report.html

# Unit tests, one process per core, and a distributed smoke test.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit -n auto --dist loadfile
	$(BIN)/python -m pytest tests/distributed -m "dist and not slow and not long"

# Slow tests, the wheel, the notebook, CUDA and NCCL on a null device, failing disks, browser tests, SLURM tests, fuzzers.
test-all: install
	$(BIN)/python -m pytest tests/distributed tests/wheel tests/notebook -m "slow"
	$(BIN)/python -m pytest tests/null -m "null"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/storage -m "storage"
	$(BIN)/python -m pytest tests/browser -m "browser"
	$(MAKE) test-demo
	$(BIN)/python -m pytest tests/slurm -m "slurm"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz -n auto --dist load

# Very long tests: a run that is killed and resumed fifty times; many thousand random cases of the fuzzers.
test-long: install
	COLORDIST_FUZZ_SEED=$$(date +%s) COLORDIST_FUZZ_TIMES=8 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz -n auto
	$(BIN)/python -m pytest tests/distributed -m "long" -s

# `make test` with the oldest and with the newest versions that pyproject.toml allows.
test-versions: install
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	for versions in lowest-direct highest; do set -e; \
		$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VERSIONS)/$$versions; \
		$(BIN)/uv pip install --quiet --python $(VERSIONS)/$$versions --resolution $$versions --editable '.[dev]'; \
		OMP_NUM_THREADS=1 $(VERSIONS)/$$versions/bin/python -m pytest tests/unit -n auto --dist loadfile; \
		$(VERSIONS)/$$versions/bin/python -m pytest tests/distributed -m "dist and not slow and not long"; \
	done

# The page of `demo`, in an environment on top of .venv: Gradio excludes the newest Pillow.
test-demo: install
	$(BIN)/python -m venv $(VERSIONS)/demo
	base=$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"); \
		own=$$($(VERSIONS)/demo/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"); \
		echo "import site; site.addsitedir('$$base')" > $$own/base.pth
	$(VERSIONS)/demo/bin/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	OMP_NUM_THREADS=1 $(VERSIONS)/demo/bin/python -m pytest tests/unit/serving tests/browser/test_demo_page.py

# Tests on a GPU. With benchmarks, and without an installation: benchmarks/gpu.sh.
test-gpu: install
	$(BIN)/python -m pytest tests/gpu -m "gpu"

# CPU benchmarks against a bare loop and usual practice: ratios, in a few minutes. On a GPU: benchmarks/gpu.sh.
bench: install
	mkdir -p $(BENCH)
	$(BIN)/python benchmarks/step.py --rounds 6 --json $(BENCH)/step.json
	$(BIN)/python benchmarks/usual.py --rounds 4 --json $(BENCH)/usual.json
	$(BIN)/python benchmarks/choices.py --rounds 4 --json $(BENCH)/choices.json \
		--arms "as it is, again" "freed memory returned to the system" "not channels_last" "generator run in each phase" bf16
	$(BIN)/python benchmarks/loading.py --rounds 2 --images 3000 --workers 0 2 --json $(BENCH)/loading.json
	$(BIN)/python benchmarks/startup.py --rounds 1 --json $(BENCH)/startup.json
	$(BIN)/python benchmarks/scale.py --rounds 3 --json $(BENCH)/scale.json
	$(BIN)/python benchmarks/memory.py --json $(BENCH)/memory.json \
		--cases quickstart cgan "cgan, bf16" "cgan, checkpointing"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy colordist tests
	$(BIN)/python tests/audit.py

clean:
	rm -rf $(VENV) $(VERSIONS) runs build *.egg-info
