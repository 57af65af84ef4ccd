//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

/// A fitness mirror that sees body parts and keeps every picture to itself.
///
/// Without a command it starts the mirror, as `mirror run` does.
#[derive(Debug, Parser)]
#[command(name = "mirror", version = crate::VERSION, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings for `mirror` without a command.
    #[command(flatten)]
    pub run: RunArgs,
    /// Print more about what happens, on standard error (-vv for still more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Cli {
    /// The command line of this process; on a wrong one the process ends with a message.
    pub fn read() -> Cli {
        Cli::try_read(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn try_read(
        words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Cli, clap::Error> {
        let mut command = Cli::command();
        let matches = command.try_get_matches_from_mut(words)?;
        if let (true, Some(option)) = (matches.subcommand().is_some(), option_of_run(&matches)) {
            let text = whose(option, &command, &matches);
            return Err(command.error(ErrorKind::ArgumentConflict, text));
        }
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// Whether this starts the mirror.
    pub fn is_run(&self) -> bool {
        matches!(self.command, None | Some(Command::Run(_)))
    }
}

/// An option of `mirror` without a command, if one was given: before a command it would say nothing to it.
fn option_of_run(matches: &ArgMatches) -> Option<&'static str> {
    let given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
    ["source", "display", "frames", "config", "board"].into_iter().find(given)
}

/// What to do about an option that stands before the command that was asked for.
fn whose(option: &str, mirror: &clap::Command, matches: &ArgMatches) -> String {
    let (mut command, mut matches, mut words) = (mirror, matches, Vec::new());
    while let Some((name, inner)) = matches.subcommand() {
        let Some(next) = command.find_subcommand(name) else { break };
        (command, matches) = (next, inner);
        words.push(name);
    }
    let asked = words.join(" ");
    let has_it = command.get_arguments().any(|argument| argument.get_long() == Some(option));
    match has_it {
        true => format!("--{option} stands before its command; put it after `{asked}`"),
        false => format!("`mirror {asked}` has no --{option}; leave it out"),
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the mirror: camera or demo scene to overlay, until stopped
    Run(RunArgs),
    /// Parse pictures into label maps, colour pictures and lists of people
    Parse(ParseArgs),
    /// Measure every stage, one picture after the other
    Bench(BenchArgs),
    /// Score the parsing of a folder of labelled pictures
    Eval(EvalArgs),
    /// Show or check the settings
    Config(ConfigArgs),
    /// Get a code for pairing a browser of the home network with the running mirror
    Pair(PairArgs),
    /// Plan, price and show the privacy budget
    Privacy(PrivacyArgs),
}

/// Which settings apply.
#[derive(Args, Clone, Debug, Default)]
pub struct SettingsArgs {
    /// Settings file; overrides the board profile and /etc/mirror/mirror.toml key by key
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Board profile instead of the detected one: pc, rpi5, rpi4, rk3588, virt
    #[arg(long, value_name = "NAME", env = "MIRROR_BOARD")]
    pub board: Option<String>,
}

/// Options of `mirror run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// auto, camera, demo, or a path: device, folder of pictures, .y4m or .mjpeg file
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<String>,
    /// auto, drm, fbdev, window, headless, or headless:FOLDER for PNG files
    #[arg(long, value_name = "DISPLAY")]
    pub display: Option<String>,
    /// Stop after this many pictures whose overlay is shown here or, without a display, ready for the page; status screens do not count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub frames: Option<u64>,
    /// Which settings apply.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Classes of a label map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Classes {
    /// The sixteen classes of the network
    #[default]
    Full,
    /// The seven classes of PASCAL-Person-Part
    Ppp,
}

/// Options of `mirror parse`.
#[derive(Args, Debug)]
pub struct ParseArgs {
    /// JPEG or PNG pictures
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Folder for NAME.png (labels), NAME.colour.png and NAME.json, in pixels of the file as it lies; created if missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Classes of the label maps
    #[arg(long, value_enum, default_value_t)]
    pub classes: Classes,
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
    /// Look at every picture once, as at a camera's, and not again where the people are
    #[arg(long)]
    pub once: bool,
    /// Which settings apply.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Options of `mirror bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Source, as for `mirror run`
    #[arg(long, value_name = "SOURCE", default_value = "demo")]
    pub source: String,
    /// Display, as for `mirror run`; headless draws without showing
    #[arg(long, value_name = "DISPLAY", default_value = "headless")]
    pub display: String,
    /// Pictures to measure, after ten that are not
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub frames: u64,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
    /// Which settings apply.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Options of `mirror eval`.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// Folder with images/, labels/, classes.toml, and optionally person/ and points.csv, in pixels of the files as they lie
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Print the scores as JSON
    #[arg(long)]
    pub json: bool,
    /// Look at every picture once, as at a camera's, and not again where the people are
    #[arg(long)]
    pub once: bool,
    /// Which settings apply.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Options of `mirror config`.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// Show or check.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Print every setting in effect and where it comes from
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Which settings apply.
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Check settings files without starting anything
    Check {
        /// Files to check; without any, the settings in effect, and whether what they name is there
        files: Vec<PathBuf>,
        /// Which settings apply.
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

/// Options of `mirror pair`.
#[derive(Args, Debug)]
pub struct PairArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which settings apply.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Options of `mirror privacy`.
#[derive(Args, Debug)]
pub struct PrivacyArgs {
    /// Which question.
    #[command(subcommand)]
    pub action: PrivacyAction,
}

/// Questions about the privacy budget.
#[derive(Debug, Subcommand)]
pub enum PrivacyAction {
    /// The noise multiplier that a number of lifetime releases needs
    Plan {
        /// Target epsilon
        #[arg(long, value_name = "E")]
        epsilon: f64,
        /// Probability with which the guarantee may fail
        #[arg(long, value_name = "D")]
        delta: f64,
        /// Lifetime releases
        #[arg(long, value_name = "T")]
        releases: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// The epsilon that releases cost
    Epsilon {
        /// Standard deviation of the noise divided by the clipping norm, such as 1.2
        #[arg(long, value_name = "Z")]
        noise_multiplier: String,
        /// Releases
        #[arg(long, value_name = "T")]
        releases: u64,
        /// Share of the units that each release draws at random, for studies of sub-sampled
        /// settings; a mirror's own releases use all of its data, which is 1
        #[arg(long, value_name = "Q", default_value_t = 1.0)]
        sampling_rate: f64,
        /// Probability with which the guarantee may fail
        #[arg(long, value_name = "D")]
        delta: f64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What this mirror has spent, from its ledger
    Ledger {
        /// Also print how many records were checked and the hash of the last one
        #[arg(long)]
        verify: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Which settings apply.
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_run() {
        let cli = Cli::try_parse_from(["mirror", "--source", "demo", "--frames", "3"]).expect("ok");
        assert!(cli.command.is_none());
        assert_eq!(cli.run.frames, Some(3));
    }

    #[test]
    fn more_may_be_asked_for_before_the_command_and_after_it() {
        for words in [&["-v", "run"][..], &["run", "-v"], &["-v", "privacy", "ledger"], &["-v"]] {
            let cli = Cli::try_read(["mirror"].iter().chain(words)).expect("ok");
            assert_eq!(cli.verbose, 1, "{words:?}");
        }
    }

    #[test]
    fn an_option_before_the_command_is_sent_behind_it() {
        let words = ["mirror", "--board", "rpi9", "config", "show"];
        let text = Cli::try_read(words).expect_err("in front").to_string();
        assert!(text.contains("put it after `config show`"), "{text}");
        assert!(Cli::try_read(["mirror", "config", "show", "--board", "rpi5"]).is_ok());
        assert!(Cli::try_read(["mirror", "--board", "rpi5"]).is_ok());
        // Every option of `mirror` without a command is asked about.
        let command = Cli::command();
        let own = command.get_arguments().filter_map(|argument| argument.get_long());
        for option in own.filter(|option| !["verbose", "help", "version"].contains(option)) {
            let given = format!("--{option}");
            let text = Cli::try_read(["mirror", &given, "1", "pair"]).expect_err("in front");
            let behind = Cli::try_read(["mirror", "pair", &given, "1"]).is_ok();
            let says = if behind { "put it after `pair`" } else { "`mirror pair` has no" };
            assert!(text.to_string().contains(says), "{text}");
        }
    }
}
