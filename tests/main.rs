//! The program as its users run it: every test starts the binary, most on a dataset that it draws first.

mod bad_input;
mod bounds;
mod bucket;
mod epochs;
mod fixture;
mod plans;
mod prepare;
mod recipes;
mod replace;
mod run_folder;
mod tidy;
mod train;
mod weights;
