//! The program as its users run it: every test starts the binary, most on a dataset that it draws first.

mod bad_input;
mod bounds;
mod bucket;
mod chain;
mod command_line;
mod epochs;
mod faults;
mod fixture;
mod first_steps;
mod imbalance;
mod input_size;
mod hostile;
mod ownership;
mod plans;
mod prepare;
mod recipes;
mod replace;
mod report;
mod run_folder;
mod source;
mod terminal;
mod tidy;
mod train;
mod weights;
