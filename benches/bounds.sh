#!/bin/sh
# Does the release program stay below the memory that its plan names, on the shapes of input that are worst?
# Prints plan and peak of each case of tests/bounds.rs; a peak above its plan by more than 32 MiB fails.
set -eu
cargo test --release --test forebay bounds -- --nocapture --test-threads 1
