//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A fitness mirror that sees body parts and keeps every picture to itself.
///
/// Without a command it starts the mirror, as `mirror run` does.
#[derive(Debug, Parser)]
#[command(
    name = "mirror",
    version = crate::VERSION,
    propagate_version = true,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings for `mirror` without a command.
    #[command(flatten)]
    pub run: RunArgs,
    /// More about what is happening, on standard error (twice for more).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Cli {
    /// Whether this starts the mirror.
    pub fn is_run(&self) -> bool {
        matches!(self.command, None | Some(Command::Run(_)))
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
    /// Stop after this many overlays were shown; status screens do not count
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
    /// Folder for NAME.png (labels), NAME.colour.png and NAME.json; created if missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Classes of the label maps
    #[arg(long, value_enum, default_value_t)]
    pub classes: Classes,
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
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
    /// Folder with images/, labels/, classes.toml, and optionally person/ and points.csv
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Print the scores as JSON
    #[arg(long)]
    pub json: bool,
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
        /// Files to check; without any, the settings in effect
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
    use clap::CommandFactory;

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
}
