# make demo | make test | make setup | make clean | make help

PYTHON ?= python3
TORCH ?=
DATA =
SCENE =
CONFIG =
CHECKPOINT =
DEVICE =

VENV_PYTHON := .venv/bin/python
SETUP := "$(PYTHON)" syncl_ros/bootstrap/install.py --torch "$(TORCH)"

# Idle worker threads must not spin on cores that other processes of the demo and the tests need.
export OMP_WAIT_POLICY ?= PASSIVE

# Without a sourced ROS 2, a PYTHONPATH of the calling shell and the settings of another environment with ROS wheels would
# only get in the way.
ifndef ROS_DISTRO
unexport PYTHONPATH PYTHONHOME _ROS_WHEELS_BOOTSTRAP_COMPLETE
export AMENT_PREFIX_PATH := $(CURDIR)/.venv
endif

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests demo test clean

help: ## show this text
	@echo "SynCL-ROS: camera-only 3D multi-object tracking on ROS 2"
	@echo
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16
	@echo
	@echo "variables:"
	@echo "  DATA=FOLDER   nuScenes root for the demo (default: a synthetic scene)"
	@echo "  SCENE=NAME    scene of it (default: the first)"
	@echo "  CHECKPOINT=FILE  weights for the demo (default: the project's own, which know the synthetic world alone)"
	@echo "  CONFIG=FILE   configuration for the demo (default: that of the weights)"
	@echo "  DEVICE=NAME   where the demo's network computes, as cpu (default: a GPU if there is one)"
	@echo "  PYTHON=NAME   Python 3.10 to 3.12 to build .venv with (default: python3)"
	@echo "  TORCH=ARGS    what pip installs as torch (default: the exact CPU build); given once, it stays. Example:"
	@echo "                TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130'"
	@echo "A sourced ROS 2 (ROS_DISTRO) is used; otherwise ROS 2 Jazzy is installed into .venv as wheels."

setup: ## build .venv: torch, ROS 2 and the project (2 GB; repeating it takes no time)
	@$(SETUP)

setup-tests:
	@$(SETUP) --with-tests

demo: setup ## track a scene with the real node over DDS; results in out/demo
	@"$(VENV_PYTHON)" -m syncl_ros.demo --data "$(DATA)" --scene "$(SCENE)" --config "$(CONFIG)" --checkpoint "$(CHECKPOINT)" --device "$(DEVICE)"

# The core's tests run side by side, one thread each. Those over DDS have deadlines, so they run one after the other.
test: setup-tests ## run everything the continuous integration runs
	@"$(VENV_PYTHON)" -m ruff check .
	@"$(VENV_PYTHON)" -m ruff format --check .
	@OMP_NUM_THREADS=1 "$(VENV_PYTHON)" -m pytest test/core -n auto --maxprocesses 8 --dist loadfile
	@"$(VENV_PYTHON)" -m pytest test/ros

clean: ## remove .venv and what builds leave behind (out/ stays)
	rm -rf .venv build install log dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find syncl_core syncl_ros launch test -name __pycache__ -type d -prune -exec rm -rf {} +
