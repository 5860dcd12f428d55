//! `forebay completions SHELL` and `forebay man`: what a shell and `man` know of the program, made from the command line
//! itself, so that no option can be missing.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::flow::Error;
use crate::options::{Kind, command_line, option};
use crate::report::{say, say_as_it_is};

/// The command line with the two commands that are about itself.
pub fn whole_command_line() -> clap::Command {
    let shell = Arg::new("shell").value_name("SHELL").required(true).value_parser(clap::value_parser!(Shell));
    let completions = clap::Command::new("completions")
        .about("Print what completes commands, options and their values in a shell")
        .after_help(
            "Examples:\n  forebay completions bash > ~/.local/share/bash-completion/completions/forebay\n  forebay completions zsh > ~/.zfunc/_forebay\n  forebay completions fish > ~/.config/fish/completions/forebay.fish",
        )
        .arg(shell.help("The shell"));
    let command =
        Arg::new("command").value_name("COMMAND").num_args(0..).help("The command, such as `train`");
    let dir =
        Arg::new("dir").long("dir").value_name("DIR").help("Write the page of every command to this folder");
    let man = clap::Command::new("man")
        .about("Print the manual page of a command, or write those of all")
        .after_help("Examples:\n  forebay man train | man -l -\n  forebay man --dir ~/.local/share/man/man1")
        .arg(command)
        .arg(dir.value_parser(clap::value_parser!(PathBuf)).conflicts_with("command"));
    command_line().subcommand(completions).subcommand(man)
}

/// What the program says of itself, where it is asked to.
///
/// # Errors
/// [`Error::Usage`] for a command that there is not; [`Error::Failed`] when pages cannot be written.
pub fn run(matches: &ArgMatches) -> Option<Result<(), Error>> {
    match matches.subcommand()? {
        ("completions", asked) => {
            let shell = *asked.get_one::<Shell>("shell").expect("it is required");
            say_as_it_is(&completions(shell));
            Some(Ok(()))
        }
        ("man", asked) => Some(match asked.get_one::<PathBuf>("dir") {
            Some(dir) => write_pages(dir),
            None => {
                let words: Vec<&str> =
                    asked.get_many::<String>("command").unwrap_or_default().map(String::as_str).collect();
                page(&words).map(|page| say_as_it_is(&page))
            }
        }),
        _ => None,
    }
}

/// The script for a shell.
fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut open(whole_command_line()), "forebay", &mut script);
    String::from_utf8(script).expect("the command line is text")
}

/// The command line with all that help leaves out for brevity: further names of options, and their words as values.
fn open(command: clap::Command) -> clap::Command {
    let argument = |argument: Arg| {
        let names: Vec<String> =
            argument.get_all_aliases().unwrap_or_default().into_iter().map(String::from).collect();
        let argument = argument.visible_aliases(names);
        match option(argument.get_id().as_str()).map(|row| row.kind) {
            Some(
                Kind::Choice(words)
                | Kind::Preset(words)
                | Kind::ChoiceOrInteger(words, ..)
                | Kind::ChoiceOrShares(words, _),
            ) => argument.value_parser(PossibleValuesParser::new(words)),
            Some(Kind::Place) => argument.value_hint(ValueHint::AnyPath),
            _ => argument,
        }
    };
    command.mut_args(argument).mut_subcommands(open)
}

fn built() -> clap::Command {
    let mut program = whole_command_line().disable_help_subcommand(true);
    program.build();
    program
}

/// The manual page of a command, which one word or more name.
fn page(words: &[&str]) -> Result<String, Error> {
    let program = built();
    let mut command = &program;
    for word in words {
        command = command.find_subcommand(word).ok_or_else(|| {
            Error::Usage(format!("there is no command {}; `forebay --help` lists them", words.join(" ")))
        })?;
    }
    let mut page = Vec::new();
    page_of(command).render(&mut page).expect("a string takes what is written to it");
    Ok(String::from_utf8(page).expect("the command line is text"))
}

fn page_of(command: &clap::Command) -> Man {
    Man::new(command.clone()).source(concat!("forebay ", env!("CARGO_PKG_VERSION"))).manual("Forebay")
}

/// The page of every command, into a folder that is made where it is missing.
fn write_pages(dir: &Path) -> Result<(), Error> {
    fn write(command: &clap::Command, dir: &Path) -> std::io::Result<()> {
        page_of(command).generate_to(dir)?;
        command.get_subcommands().try_for_each(|inner| write(inner, dir))
    }
    std::fs::create_dir_all(dir)
        .and_then(|()| write(&built(), dir))
        .map_err(|error| Error::failed(format!("write manual pages to {}", dir.display()), error))?;
    say(&format!("written to {}: forebay.1 and a page for each command\n", dir.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command with the words that name it.
    fn commands(command: &clap::Command, words: &[String], found: &mut Vec<(Vec<String>, clap::Command)>) {
        found.push((words.to_vec(), command.clone()));
        for inner in command.get_subcommands() {
            commands(inner, &[words, &[inner.get_name().to_string()]].concat(), found);
        }
    }

    #[test]
    fn every_command_and_option_is_completed_and_in_the_manual() {
        let (mut found, mut flags) = (Vec::new(), 0);
        commands(&built(), &[], &mut found);
        let scripts = [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish];
        let scripts: Vec<String> = scripts.into_iter().map(completions).collect();
        for (words, command) in &found {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            // A dash is a minus sign in troff.
            let page = page(&words).unwrap().replace("\\-", "-");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let Some(long) = argument.get_long() else { continue };
                flags += 1;
                assert!(page.contains(&format!("--{long}")), "--{long} in the page of {words:?}");
                for name in argument.get_all_aliases().unwrap_or_default().into_iter().chain([long]) {
                    for script in &scripts {
                        assert!(script.contains(name), "{name} of {words:?} in\n{}", &script[..200]);
                    }
                }
            }
            let Some(name) = words.last() else { continue };
            for script in &scripts {
                assert!(script.contains(name), "{name}");
            }
        }
        assert!(found.len() > 14 && flags > 200, "{} commands, {flags} options", found.len());
        assert!(page(&["trian"]).is_err());
    }

    #[test]
    fn the_command_line_is_consistent_with_every_name_of_an_option_shown() {
        open(whole_command_line()).debug_assert();
    }
}
