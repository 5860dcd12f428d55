//! The program as its users run it: every test starts the binary, most on a dataset that it draws first.

mod bad_input;
mod bucket;
mod fixture;
mod plans;
mod prepare;
mod recipes;
mod run_folder;
mod tidy;
mod train;
mod weights;
