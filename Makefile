# make demo    builds kiln and shows a real multi-stage build, with no registry in reach
# make test    passes every test
# make bench   measures kiln beside the field
# make fuzz    looks for input that breaks the frontend, FUZZ_SECONDS for each target
.PHONY: demo test bench lint fuzz

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

FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= parse expand ignore lower

fuzz:
	@tools/setup.sh fuzz
	@cd frontend && for target in $(FUZZ_TARGETS); do \
	    $(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=20 \
	        -rss_limit_mb=4096 -max_len=4096 -dict=fuzz/dockerfile.dict || exit 1; \
	done
