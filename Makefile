# The two commands of the README, and what developers use every day.

CARGO := tools/with-cmake cargo
# What `make demo ARGS="--events FILE --config FILE"` passes on.
ARGS ?=

.PHONY: demo test lint format build release clean

# Builds, runs every role in one process on a temporary directory, sends events, and shows the feeds.
demo:
	@$(CARGO) build --quiet --bin millpond
	@target/debug/millpond demo $(ARGS)

# Every test. MILLPOND_DATA=FOLDER adds those that need the real events; they say so where it is missing.
test:
	@tools/nats-server >/dev/null
	$(CARGO) test --workspace --lib --bins --tests

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
