# Two commands: `make demo` and `make test`. Everything runs from .venv, which is made where it is missing or stale.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

HORIZON ?= 24

.DEFAULT_GOAL := help
.PHONY: help demo new data retrain reproduce ablation test test-gpu test-service bench-training bench-accuracy bench-efficacy bench-controls bench-promotion bench-scale chaos check audit format up down \
	mlflow-page prefect-page clean

help: ## what there is to call
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# CityLearn (only its data are used) and fracast declare more than they need here, so they come without dependencies.
# The stamp is written last: an installation that was cut off is made again.
.venv/installed: constraints.txt pyproject.toml
	@echo "Setting up .venv (once; some minutes)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[demo,dev]'
	@$(BIN)/python -m pip install -qq --no-deps --constraint constraints.txt CityLearn fracast
	@touch $@

demo: .venv/installed ## retrain and register three forecasters: two of a household after a campaign, one of a new home
	@$(BIN)/python -m flows.demo

new: .venv/installed ## look at a file or a folder, and write a first spec of it: FILE=meters.csv WITH="target=load name=meters"
	@$(BIN)/python -m flows.new 'file=$(FILE)' $(WITH)

# DATASET and HORIZON (hours), and in WITH further parameters of a retrain: WITH="history_days=none preset=new-site"
data: .venv/installed ## look at a dataset without training: DATASET=household HORIZON=24 WITH="test_days=60"
	@$(BIN)/python -m flows.data dataset=$(DATASET) horizon_hours=$(HORIZON) $(WITH)

reproduce: .venv/installed ## repeat a retrain in an empty home and compare what it wrote, bit for bit: RUN=its id in MLflow
	@$(BIN)/python -m flows.reproduce $(RUN)

retrain: .venv/installed ## retrain one forecaster and print its verdict: the same parameters
	@$(BIN)/python -m flows.retrain dataset=$(DATASET) horizon_hours=$(HORIZON) $(WITH)

ablation: .venv/installed ## what each privilege of the teachers brought, and days of history saved: the same parameters
	@$(BIN)/python -m flows.ablation dataset=$(DATASET) horizon_hours=$(HORIZON) $(WITH)

test: .venv/installed ## the tests, warnings as errors, on up to four cores
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile -m 'not gpu and not service and not chaos'

test-service: .venv/installed ## the tests on real servers: Prefect, MLflow and a worker on free ports, two at a time
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 2 --dist loadfile -m service

test-gpu: .venv/installed ## the tests that need a CUDA device (skipped, with the reason, where there is none)
	@$(BIN)/python -m pytest -m gpu -rs

bench-training: .venv/installed .venv-peers/installed ## windows a second in training, next to NeuralForecast, and side by side against one by one
	@$(BIN)/python -m benchmarks.training

# The peers want other versions of what the project wants.
.venv-peers/installed: constraints.txt
	@echo "Setting up .venv-peers (once; some minutes)"
	@$(PYTHON) -m venv --clear .venv-peers
	@.venv-peers/bin/python -m pip install -qq "$$(grep '^torch==' constraints.txt)" neuralforecast==3.3.0 statsforecast==2.1.1
	@touch $@

bench-accuracy: .venv/installed .venv-peers/installed ## the forecaster against what could be taken instead (hours; QUICK=1: minutes); it resumes
	@folder=$$($(BIN)/python -m benchmarks.accuracy inputs) && .venv-peers/bin/python benchmarks/peers.py "$$folder"
	@$(BIN)/python -m benchmarks.accuracy
	@$(BIN)/python -m benchmarks.members

bench-efficacy: .venv/installed ## distilled students against their twins, cell by cell (hours; QUICK=1: minutes); it resumes
	@$(BIN)/python -m benchmarks.efficacy

bench-controls: .venv/installed ## where privilege must help and where it can't: how often it is found
	@$(BIN)/python -m benchmarks.controls

bench-promotion: .venv/installed ## how often luck replaces a champion in a year of weekly retrains (a minute)
	@$(BIN)/python -m benchmarks.promotion

bench-scale: .venv/installed ## seconds and memory of a retrain and a forecast, from one series to a thousand
	@$(BIN)/python -m benchmarks.scale

chaos: .venv/installed ## break things while they run, an hour of it, and count what came through (QUICK=1: minutes)
	@$(BIN)/python -m benchmarks.reliability

check: .venv/installed ## lint, format, types, the direction of imports, and style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m tests.style

# pip-audit asks PyPI for what is known of each pin; a pin that can't be looked up is a failure, not a clean one.
audit: .venv/installed .venv-audit/installed ## the licences of what is installed, and known vulnerabilities of the pins
	@$(BIN)/python -m tests.audit
	@.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

.venv-audit/installed:
	@$(PYTHON) -m venv --clear .venv-audit
	@.venv-audit/bin/python -m pip install -qq pip-audit==2.10.1
	@touch $@

format: .venv/installed ## put the code in the house's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

up: .venv/installed ## the whole service: Prefect and MLflow servers, a worker, schedules; Ctrl-C or `make down` ends it
	@$(BIN)/python -m deployments.service up

down: .venv/installed ## end the service, wherever it was started
	@$(BIN)/python -m deployments.service down

mlflow-page: .venv/installed ## open the runs and the registered models: http://127.0.0.1:5000
	@$(BIN)/python -m flows.pages mlflow

prefect-page: .venv/installed ## open the flow runs and their artifacts: http://127.0.0.1:4200
	@$(BIN)/python -m flows.pages prefect

clean: ## remove the environment; var/, with its data and models, stays
	rm -rf .venv .venv-peers .venv-audit
