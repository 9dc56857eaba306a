//! `kitbag-conformance`: shows what a Matrix homeserver does with account data.

#![expect(
    clippy::print_stdout,
    reason = "the report is what this program is for"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use kitbag_client::Client;
use kitbag_conformance::{
    CANARY_DEFAULT, Canary, DeviceData, Feature, Lab, Options, PARALLEL_DEFAULT, Selection, run,
    scenarios,
};

/// Black-box scenarios for account data, against any Matrix homeserver.
///
/// Registers users of its own: the server must allow that, and have its rate limits off or high.
/// Exits with 1 if a scenario fails.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where the server is, such as http://127.0.0.1:8008.
    #[arg(long, required_unless_present = "list")]
    base_url: Option<String>,
    /// The token that registration asks for, if it does.
    #[arg(long)]
    registration_token: Option<String>,
    /// Run only scenarios whose name contains this; several are possible.
    #[arg(long)]
    filter: Vec<String>,
    /// Leave out scenarios whose name contains this; several are possible.
    #[arg(long)]
    without: Vec<String>,
    /// Where syncs have device account data (MSC4331).
    #[arg(long, value_enum, default_value_t)]
    device_data: DeviceData,
    /// What the server has, separated by commas: all, spec, rooms, kitbag, msc3391, msc3890,
    /// msc4331, msc4547, put-empty-deletes, short-tokens. Scenarios that need anything else are
    /// left out.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    features: Vec<String>,
    /// Also write the results to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Goes into contents and passwords, to be searched for in the server's log afterwards.
    #[arg(long, env = "KITBAG_TEST_CANARY", default_value = CANARY_DEFAULT)]
    canary: String,
    /// How many scenarios run at once.
    #[arg(long, default_value_t = PARALLEL_DEFAULT)]
    parallel: usize,
    /// List the scenarios instead of running them.
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let selection = Selection {
        features: features(&arguments.features)?,
        filter: arguments.filter.clone(),
        without: arguments.without.clone(),
    };
    if arguments.list {
        list(&selection);
        return Ok(ExitCode::SUCCESS);
    }
    let base_url = arguments
        .base_url
        .as_deref()
        .context("--base-url is missing")?;
    let canary = Canary::new(&arguments.canary)
        .context("--canary may have letters, digits and hyphens only")?;
    let client = Client::new(base_url)?;
    client
        .versions()
        .await
        .with_context(|| format!("no Matrix server at {base_url}"))?;
    let lab = Lab::new(client, arguments.registration_token.as_deref(), canary);
    let lab = lab.with_device_data(arguments.device_data);
    let report = run(
        &lab,
        &Options {
            selection,
            parallel: arguments.parallel,
        },
    )
    .await;
    println!("{report}");
    if let Some(file) = &arguments.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    // A run of nothing shows nothing, so a mistyped filter must not look like success.
    let good = report.failed() == 0 && !report.rows.is_empty();
    // A few scenarios may well store nothing.
    let has_canary = report.canary_stored > 0 || !arguments.filter.is_empty();
    if !has_canary {
        println!("FAIL: the canary was never stored, so it cannot be found in a log either");
    }
    Ok(if good && has_canary {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn features(names: &[String]) -> anyhow::Result<Vec<Feature>> {
    if names.iter().any(|name| name == "all") {
        return Ok(Vec::new());
    }
    names
        .iter()
        .map(|name| Feature::of_name(name).with_context(|| format!("no feature `{name}`")))
        .collect()
}

fn list(selection: &Selection) {
    for scenario in scenarios::all()
        .iter()
        .filter(|scenario| selection.keeps(scenario))
    {
        let features: Vec<_> = scenario.features().iter().map(|f| f.name()).collect();
        println!("{}  [{}]", scenario.name(), features.join(", "));
        println!("    {}\n    {}", scenario.text(), scenario.reference());
    }
}
