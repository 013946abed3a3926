# The two commands of the README, and what developers use every day.

CARGO := tools/with-cmake cargo
# What `make demo ARGS="--events FILE --config FILE"` passes on.
ARGS ?=
# What `make chaos` runs: so many seeds from 1 on, or those from one to another, as in SEEDS=60-80.
SEEDS ?= 50
# How long `make fuzz` spends on each target, in seconds, and on which of them.
SECONDS_EACH ?= 600
TARGETS ?= $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs)))
# The compiler that it is done with, as in FUZZER=+nightly; docs/TESTING.md.
FUZZER ?=

.PHONY: demo test chaos fuzz fuzz-keep lint format build release clean

# Builds, runs every role in one process on a temporary directory, sends events, and shows the feeds.
demo:
	@$(CARGO) build --quiet --bin millpond
	@target/debug/millpond demo $(ARGS)

# Every test. MILLPOND_DATA=FOLDER adds those that need the real events; they say so where it is missing.
test:
	@tools/nats-server >/dev/null
	@tools/postgres-server >/dev/null
	HISTORIES=$${HISTORIES:-10000} $(CARGO) test --workspace --lib --bins --tests
	$(CARGO) test --manifest-path tests/validators/Cargo.toml

# Everything goes wrong, by the plan of each seed; docs/TESTING.md.
chaos:
	@tools/nats-server >/dev/null
	MILLPOND_CHAOS_SEEDS=$(SEEDS) $(CARGO) test --test suite chaos -- --nocapture

# Looks for inputs that break a property. What it learns goes to fuzz/grown, what breaks one to fuzz/artifacts.
fuzz:
	@for target in $(TARGETS); do \
		mkdir -p fuzz/grown/$$target; \
		$(CARGO) $(FUZZER) fuzz run -s none $$target fuzz/grown/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(SECONDS_EACH) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 || exit 1; \
	done

# Takes what was learnt, as few and as small inputs as tell as much, into fuzz/corpus.
fuzz-keep:
	@for target in $(TARGETS); do \
		rm -rf fuzz/kept && mkdir -p fuzz/kept; \
		$(CARGO) $(FUZZER) fuzz run -s none $$target fuzz/kept fuzz/corpus/$$target fuzz/grown/$$target -- \
			-set_cover_merge=1 -use_counters=0 || exit 1; \
		rm -rf fuzz/corpus/$$target && mv fuzz/kept fuzz/corpus/$$target; \
	done

lint:
	cargo fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

format:
	cargo fmt --all

build:
	$(CARGO) build

# With link-time optimisation: slow to build, what benchmarks measure and what is deployed.
release:
	$(CARGO) build --release

clean:
	cargo clean
	rm -rf .local
