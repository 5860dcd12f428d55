//! The command line, made from the table of options: what is written there is a flag here and a key in the run
//! file.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches};
use forebay_datasets::words::Words;

use super::choices::Level;
use super::command::{COMMANDS, Command, CommandRow};
use super::facts::Facts;
use super::layers::Problems;
use super::nearest::nearest;
use super::spellings::{Spelling, instead_of};
use super::table::{Kind, OPTIONS, OptionRow, at_home};
use super::values::{Config, Layer};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The command.
    pub command: Command,
    /// Whether only its plan is printed.
    pub plan_only: bool,
    /// Whether results are JSON on stdout.
    pub json: bool,
    /// How much is said besides results.
    pub level: Level,
    /// The resolved options.
    pub config: Config,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 run failed, 2 usage or plan, 3 too many rejects or nothing written,
4 integrity, 130, 143 or 129 interrupted (Ctrl-C, SIGTERM, SIGHUP).";

/// What `--version` says: the version, the commit, the machine and the features that the program was built for.
fn long_version() -> String {
    let features: Vec<&str> = [("cuda", cfg!(feature = "cuda")), ("cudnn", cfg!(feature = "cudnn"))]
        .into_iter()
        .filter_map(|(name, is_on)| is_on.then_some(name))
        .collect();
    let features = if features.is_empty() { "none".to_string() } else { features.join(", ") };
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("FOREBAY_COMMIT"));
    format!("{version} ({commit}, {}, features: {features})", env!("FOREBAY_TARGET"))
}

/// The command line of everything that the table of options is about.
pub fn command_line() -> clap::Command {
    let mut program = clap::Command::new("forebay")
        .version(env!("CARGO_PKG_VERSION"))
        .long_version(long_version())
        .about("From image folders and buckets to shards, batches and a fine-tuned model")
        .after_help(format!(
            "Every option is also a key of a run file: `forebay train --config run.toml`. The keys stand in [brackets]\nin each command's --help.\n\n{EXIT_CODES}"
        ))
        .subcommand_required(true)
        .arg_required_else_help(true);
    let mut plan = clap::Command::new("plan")
        .about("Print the checked plan of a run without running it, or every problem of it at once")
        .subcommand_required(true)
        .arg_required_else_help(true);
    for row in COMMANDS {
        let own = subcommand(row, row.about, row.example);
        program = match row.below {
            Some(above) => program
                .mut_subcommand(above, |above| above.args_conflicts_with_subcommands(true).subcommand(own)),
            None => program.subcommand(own),
        };
        if row.shows_plan {
            let about = format!("Print the plan of `forebay {}`", row.name);
            plan =
                plan.subcommand(subcommand(row, &about, &row.example.replace("forebay ", "forebay plan ")));
        }
    }
    program.subcommand(plan)
}

fn subcommand(row: &'static CommandRow, about: &str, example: &str) -> clap::Command {
    let command = row.command;
    let more = match row.below {
        Some(above) => format!("`forebay {above} {} --help` lists every option", row.name),
        None => format!("`forebay {} --help` lists every option", row.name),
    };
    let mut subcommand = clap::Command::new(row.name)
        .about(about.to_string())
        .after_help(format!("Examples:\n  {example}\n\n{more}."))
        .after_long_help(format!("Examples:\n  {example}\n\n{EXIT_CODES}"));
    let mut rows: Vec<&OptionRow> = OPTIONS.iter().filter(|row| row.is_of(command)).collect();
    rows.sort_by_key(|row| row.heading);
    for row in rows {
        subcommand = subcommand.arg(argument(row));
    }
    subcommand
        .next_help_heading("Every command")
        .arg(
            Arg::new("config")
                .short('c')
                .long("config")
                .value_name("FILE")
                .help("A run file in TOML; flags and --set beat it"),
        )
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .help("Set one key of the run file; may be given again"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Results as JSON on stdout; its last line is one object"),
        )
        .arg(
            Arg::new("quiet")
                .short('q')
                .long("quiet")
                .action(ArgAction::SetTrue)
                .conflicts_with("verbose")
                .help("Say results, warnings and errors only"),
        )
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::SetTrue)
                .help("Say more: the plan of a run before it starts, and its log"),
        )
        // Clap's own would stand under a heading of its own, before all others.
        .disable_help_flag(true)
        .arg(
            Arg::new("help")
                .short('h')
                .long("help")
                .action(ArgAction::Help)
                .help("Print the usual options with -h, every option with --help"),
        )
}

fn argument(row: &'static OptionRow) -> Arg {
    let default = match row.default {
        "" | "false" | "true" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let key = if row.flag.is_empty() { String::new() } else { format!(" [{}]", row.key) };
    let argument = Arg::new(row.key)
        .help(format!("{}{default}", in_short(row.help)))
        .long_help(format!("{}{default}{key}", row.help))
        .hide_short_help(!row.is_usual);
    let argument = match (row.flag, row.kind) {
        ("", Kind::Places) => {
            return argument.value_name(row.value).allow_hyphen_values(false).num_args(1..);
        }
        ("", _) => return argument.value_name(row.value).allow_hyphen_values(false),
        (flag, Kind::Switch(_)) => argument.long(flag).action(ArgAction::SetTrue),
        (flag, Kind::Space) => argument.long(flag).value_name(row.value).action(ArgAction::Append),
        (flag, Kind::Choice(words) | Kind::Preset(words)) => {
            let words = words.join("|");
            argument.long(flag).value_name(if words.len() <= 34 { words } else { row.value.to_string() })
        }
        (flag, _) => argument.long(flag).value_name(row.value).allow_negative_numbers(true),
    };
    let argument = argument.help_heading(row.heading.name());
    match Spelling::of(row.key) {
        Some(Spelling { short: Some(letter), names, .. }) => argument.short(*letter).aliases(*names),
        Some(Spelling { names, .. }) => argument.aliases(*names),
        None => argument,
    }
}

/// The first clause of a help text.
fn in_short(help: &str) -> &str {
    let end = ["; ", ". ", " [default"].into_iter().filter_map(|mark| help.find(mark)).min();
    &help[..end.unwrap_or(help.len())]
}

/// What is wrong with arguments that could not be understood, in one line.
pub fn explain(error: &clap::Error, arguments: &[String]) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let named = |row: &&CommandRow| arguments.iter().any(|argument| argument == row.name);
    // `bench model` is named by both of its words.
    let command = COMMANDS.iter().filter(named).max_by_key(|row| row.below.is_some());
    let program = match command {
        Some(CommandRow { name, below: Some(above), .. }) => format!("forebay {above} {name}"),
        Some(CommandRow { name, .. }) => format!("forebay {name}"),
        None => "forebay".to_string(),
    };
    let instead = |words: Option<String>| match words {
        Some(words) => format!("did you mean {words}?"),
        None => format!("`{program} --help` lists what there is"),
    };
    match (error.kind(), command) {
        (ErrorKind::UnknownArgument, Some(row)) => {
            let flag = context(ContextKind::InvalidArg).unwrap_or_default();
            let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
            match flag.starts_with('-') {
                true => {
                    format!("{program} has no option {flag}; {}", instead(instead_of(row.command, name)))
                }
                false => format!("{program} takes no further argument: {flag}; {}", instead(None)),
            }
        }
        (ErrorKind::InvalidSubcommand, _) => {
            let word = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            let near =
                nearest(word, COMMANDS.iter().map(|row| row.name).chain(["plan", "completions", "man"]));
            format!("there is no command {word}; {}", instead(near.map(|near| format!("`forebay {near}`"))))
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(words)) if !words.is_empty() => {
                    format!("{first}; choose one of {}", words.join(", "))
                }
                _ => format!("{first}; {}", instead(None)),
            }
        }
    }
}

/// The arguments with the switches that every command has behind the command, where they were given before it.
pub fn switches_last(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let is_switch = |argument: &&OsString| {
        ["-q", "--quiet", "-v", "--verbose", "--json"].iter().any(|switch| *argument == switch)
    };
    let n = arguments.iter().skip(1).take_while(is_switch).count();
    if arguments.len() > n + 1 {
        let switches: Vec<OsString> = arguments.drain(1..=n).collect();
        let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
        arguments.splice(end..end, switches);
    }
    arguments
}

/// Resolves the arguments; `read` reads the run file.
///
/// # Errors
/// Every problem, one a line.
pub fn resolve(
    matches: &ArgMatches,
    read: impl Fn(&str) -> std::io::Result<String>,
) -> Result<Invocation, Problems> {
    let (mut name, mut matches) = matches.subcommand().expect("a subcommand is required");
    let plan_only = name == "plan";
    if let Some(inner) = matches.subcommand() {
        (name, matches) = inner;
    }
    let known = COMMANDS.iter().find(|row| row.name == name).expect("made from the same table");
    let command = known.command;
    let file = match matches.get_one::<String>("config") {
        Some(path) => {
            let found = match path.starts_with('~') {
                true => at_home(path).and_then(|path| read(&path).map_err(|error| error.to_string())),
                false => read(path).map_err(|error| error.to_string()),
            };
            let cannot = |error| Problems(vec![format!("--config {path}: cannot read it: {error}")]);
            Some((path.as_str(), found.map_err(cannot)?))
        }
        None => None,
    };
    let sets: Vec<String> = matches.get_many::<String>("set").unwrap_or_default().cloned().collect();
    let mut flags = Vec::new();
    for row in OPTIONS.iter().filter(|row| row.is_of(command)) {
        match row.kind {
            Kind::Switch(_) if matches.get_flag(row.key) => flags.push((row.key, String::new())),
            Kind::Switch(_) => {}
            Kind::Places | Kind::Space => {
                let places: Vec<&str> =
                    matches.get_many::<String>(row.key).unwrap_or_default().map(String::as_str).collect();
                flags.extend((!places.is_empty()).then(|| (row.key, places.join("\0"))));
            }
            _ => flags.extend(matches.get_one::<String>(row.key).map(|text| (row.key, text.clone()))),
        }
    }
    let file = file.as_ref().map(|(path, text)| (*path, text.as_str()));
    let config = Config::resolve(file, &sets, &flags)?;
    // A run file is of several commands, and --set is of this one.
    let foreign = |row: &&OptionRow| config.given(row.key) == Some(Layer::Set) && !row.is_of(command);
    let foreign: Vec<String> = OPTIONS
        .iter()
        .filter(foreign)
        .map(|row| format!("--set {}: forebay {} has no such option; leave it out", row.key, known.name))
        .collect();
    if !foreign.is_empty() {
        return Err(Problems(foreign));
    }
    let config = config.only_of(command);
    let problems = match known.checks_options {
        true => Vec::new(),
        false => config.without_effect(command, &Facts::default()),
    };
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let level = match (matches.get_flag("quiet"), matches.get_flag("verbose")) {
        (true, _) => Level::Quiet,
        (false, true) => Level::Verbose,
        (false, false) => Level::Normal,
    };
    Ok(Invocation { command, plan_only, json: matches.get_flag("json"), level, config })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<Invocation, Problems> {
        let matches = command_line().try_get_matches_from(arguments).unwrap();
        resolve(&matches, |_| Ok("train.epochs = 4\nencode.quality = 50\n".to_string()))
    }

    #[test]
    fn switches_may_stand_before_the_command() {
        let ordered = |text: &str| {
            let arguments = text.split(' ').map(OsString::from);
            switches_last(arguments).join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(ordered("forebay -q --json plan train x"), "forebay plan train x -q --json");
        assert_eq!(ordered("forebay -v inspect -- -q"), "forebay inspect -v -- -q");
        assert_eq!(ordered("forebay --version"), "forebay --version");
        assert_eq!(ordered("forebay -q"), "forebay -q");
    }

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn a_flag_ends_up_under_its_key() {
        let asked =
            run(&["forebay", "prepare", "in", "out", "--config", "x", "--quality", "70", "--no-enlarge"])
                .unwrap();
        assert_eq!((asked.command, asked.plan_only, asked.json), (Command::Prepare, false, false));
        assert_eq!(asked.config.text("source").as_deref(), Some("in"));
        assert_eq!(asked.config.integer("encode.quality"), Some(70));
        let epochs = asked.config.integer("train.epochs");
        assert_eq!(epochs, Some(10), "a run file serves other commands too, and theirs is not of this one");
        assert!(!asked.config.is_on("resize.enlarge"));
        assert!(run(&["forebay", "plan", "train", "in"]).unwrap().plan_only);
        assert!(run(&["forebay", "bench", "in", "--batch-size", "no"]).is_err());
    }
}
