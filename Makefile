# make demo    builds kiln and shows a real multi-stage build, with no registry in reach
# make test    passes every test
# make bench   measures kiln beside the field
.PHONY: demo test bench lint

CARGO ?= cargo

demo:
	@tools/setup.sh demo
	@examples/demo.sh

test:
	@tools/setup.sh test
	$(CARGO) test --locked --workspace

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

bench:
	@tools/setup.sh bench
	$(CARGO) build --locked --release --bin kiln
	@tools/bench.py
