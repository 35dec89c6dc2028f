# The two commands of the README are `make demo` and `make test`; the others are what they call.
PYTHON ?= python3.11
PORT ?=
DRAIN ?=
# Shells set a HOST of their own, which says nothing of where to listen: `make serve HOST=0.0.0.0` alone counts.
host := $(if $(filter command,$(origin HOST)),$(HOST))
IMAGE ?=
OPEN ?=
# Settings of the front door, where they are not those of deploy/nginx/edge.yaml.
SETTINGS ?=
# Names of models to serve, of all if there are none: make serve MODELS="imagenet bit"
MODELS ?=
run := .venv/bin/python
serving = $(if $(PORT),--port $(PORT)) $(if $(host),--host "$(host)") $(if $(MODELS),--models $(MODELS))

# A user's own weights and labels, see archive_specs/*_full.yaml. They hold until they are given again; empty
# (`make archives LANET_WEIGHTS=`) brings the demonstration back.
$(foreach name,LANET_WEIGHTS LANET_LABELS BIT_WEIGHTS BIT_LABELS TENSORMASK_WEIGHTS TENSORMASK_LABELS \
  SWIN_WEIGHTS SWIN_CONFIG SWIN_LABELS TIMM_MODEL TIMM_WEIGHTS TIMM_LABELS PLACES_WEIGHTS PLACES_LABELS \
  HUGGINGFACE_MODEL HUGGINGFACE_LABELS TORCHVISION_MODEL TORCHVISION_WEIGHTS TORCHVISION_LABELS \
  OWN_MODULE OWN_FACTORY OWN_WEIGHTS OWN_LABELS OWN_PREPROCESS \
  PROGRAM_TORCHSCRIPT PROGRAM_EXPORTED PROGRAM_ONNX PROGRAM_LABELS PROGRAM_PREPROCESS,\
  $(if $(filter undefined,$(origin $(name))),,$(eval export $(name))))

.PHONY: setup setup-ops archives serve serve-edge supervise studio stop demo kernel notebooks docs test test-upstream \
  torture torture-cluster lint bench evaluate
.DEFAULT_GOAL := demo

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON=$(PYTHON) bash scripts/setup.sh

setup-ops:
	@bash scripts/setup_ops.sh

archives: setup
	@$(run) scripts/build_archives.py

serve: archives
	@$(run) scripts/server.py start $(serving)

supervise: archives
	@exec $(run) scripts/server.py supervise $(serving) $(if $(DRAIN),--drain $(DRAIN))

serve-edge: serve
	@mkdir -p -m 700 run/edge
	@$(run) -m imagexplain openapi $(if $(MODELS),--models $(MODELS)) --out run/edge/openapi.json
	@$(run) -m imagexplain edge start $(if $(SETTINGS),--settings "$(SETTINGS)")

# Prints the page's address and stays until Ctrl-C; OPEN=1 opens a browser there.
studio: serve
	@exec $(run) -m imagexplain studio $(if $(OPEN),--open)

# The front door ends first, so that whoever it let in is answered.
stop:
	@if [ -e run/edge/edge.json ]; then $(run) -m imagexplain edge stop $(if $(DRAIN),--drain $(DRAIN)); fi
	@if [ -x $(run) ]; then $(run) scripts/server.py stop $(if $(DRAIN),--drain $(DRAIN)); else echo "not running"; fi

demo: serve
	@$(run) scripts/demo.py $(if $(IMAGE),--image "$(IMAGE)")

# The kernel's name is that which the notebooks ask for; JUPYTER="--prefix folder" puts it elsewhere.
kernel: setup
	@$(run) -m ipykernel install $(or $(JUPYTER),--user) --name imagexplain --display-name "Python (imagexplain)"

notebooks: serve
	@$(run) scripts/execute_notebooks.py

# Compiled files are kept, for the tests start hundreds of programs that import the package; and one process more than
# there are cores, for some wait while the servers that they started do the work.
test: setup
	@env -u PYTHONDONTWRITEBYTECODE $(run) -m pytest -q --durations=20 --numprocesses=$$(($$(nproc) + 1)) --maxprocesses=4 --no-loadscope-reorder

test-upstream: setup
	@$(run) -m pytest -q -rs -m upstream

torture: setup
	@$(run) -m benchmarks.torture --out benchmarks/results_torture.json

# The pages as a site, which asks nothing of the network: read by `.venv/bin/python -m http.server -d run/site -b 127.0.0.1`.
docs: setup
	@NO_MKDOCS_2_WARNING=1 $(run) -m mkdocs build --strict --quiet && echo "run/site/index.html"

torture-cluster: setup
	@$(run) -m pytest -q -m soak tests/cluster
	@$(run) -m benchmarks.torture_cluster --out benchmarks/results_torture_cluster.json --write

lint: setup
	@$(run) -m ruff check .
	@$(run) -m ruff format --check .
	@$(run) -m mypy
	@.venv/bin/lint-imports --no-logo

# The benchmarks by few rounds each: their records were made with more, by the commands that each one states.
bench: setup
	@$(run) -m benchmarks.bench_explanation --rounds 1
	@$(run) -m benchmarks.bench_timm --rounds 1
	@$(run) -m benchmarks.bench_wire
	@$(run) -m benchmarks.bench_serving
	@$(run) -m benchmarks.bench_edge
	@$(run) -m benchmarks.bench_workers --rounds 1
	@$(run) -m benchmarks.bench_threads --rounds 1
	@$(run) -m benchmarks.bench_group_sums
	@$(run) -m benchmarks.bench_groups --rounds 2
	@$(run) -m benchmarks.bench_refinement --scenes 5
	@$(run) -m benchmarks.bench_segments --rounds 5
	@$(run) -m benchmarks.bench_segmenters --rounds 1 --turns 2
	@$(run) -m benchmarks.bench_masks --repeats 2
	@$(run) -m benchmarks.bench_precision --images 8
	@$(run) -m benchmarks.bench_methods --batches 1 --repeats 1 --least 1
	@$(run) -m benchmarks.bench_jobs --images 120 --rounds 1
	@$(run) -m benchmarks.simulate_jobs

evaluate: setup
	@$(run) scripts/evaluate.py --out benchmarks/results_evaluation.json
	@$(run) scripts/evaluate_methods.py
