//! `aggregator simulate`.

use std::io::Write;

use anyhow::{Context, Result};
use learn::averaging::Step;
use learn::privacy::{NoiseMultiplier, check_noise};

use super::{json, say};
use crate::cli::SimulateArgs;
use crate::simulate::{Plan, simulate};
use crate::student::Trunk;

/// Runs a simulation and prints its figures.
pub fn run(args: &SimulateArgs) -> Result<()> {
    let noise = args.noise_multiplier.as_deref().map(checked_noise).transpose();
    let step = Step::PLAIN.with_momentum(args.momentum).context("--momentum must lie in [0, 1)")?;
    let step = step.with_rate(args.rate).context("--rate must lie above 0")?;
    let plan = Plan {
        devices: args.devices,
        rounds: args.rounds,
        noise_multiplier: noise.context("--noise-multiplier")?,
        parameters: args.parameters,
        step,
        gate: !args.no_gate,
        threads: args.threads,
    };
    let trunk = Trunk::load(&args.model)?;
    // Nobody may be there to read it.
    let told = |step: &str| drop(writeln!(std::io::stderr(), "{step}"));
    let figures = simulate(&trunk, &args.households, &plan, told)?;
    if args.json {
        return json(&figures);
    }
    say(format!(
        "{} devices, {} of them really trained and the others resampled; {} numbers, {} bytes an update \
         (the whole head: {} bytes), noise multiplier {}",
        figures.devices,
        figures.trained_households.min(figures.devices as usize),
        figures.dimension,
        figures.update_bytes,
        figures.head_bytes,
        figures.noise_multiplier,
    ))?;
    say(format!("held-out households before any round: {:.4}", figures.base))?;
    say(format!("learning at home alone: {:.4} -> {:.4}", figures.at_home_base, figures.at_home))?;
    for round in &figures.rounds {
        say(crate::simulate::line(round))?;
    }
    if let Some(last) = figures.rounds.last() {
        say(&last.privacy)?;
    }
    Ok(())
}

/// Noise whose epsilon can be stated to the last digit, as every round's is.
fn checked_noise(text: &str) -> Result<NoiseMultiplier> {
    let noise = text.parse()?;
    check_noise(noise)?;
    Ok(noise)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Parameters;

    #[test]
    fn noise_whose_epsilon_would_not_be_exact_is_refused() {
        let told = |noise: &str| {
            let args = SimulateArgs {
                devices: 2,
                rounds: 1,
                noise_multiplier: Some(noise.to_owned()),
                parameters: Parameters::Sparse,
                momentum: 0.0,
                rate: 1.0,
                no_gate: false,
                threads: 1,
                model: "nowhere".into(),
                households: "nowhere".into(),
                json: false,
            };
            format!("{:#}", run(&args).unwrap_err())
        };
        let refused = told("0.49");
        assert!(
            refused.starts_with("--noise-multiplier: ") && refused.contains("0.5"),
            "{refused}"
        );
        assert!(told("0.5").contains("nowhere"), "only the network is missing: {}", told("0.5"));
    }
}
