//! `kitbag push`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const PUSH_EXPLAIN_EXAMPLES: &str = "\
Examples:
  kitbag push explain event.json --user @alice:example.org
      By the default rules of the specification.
  curl -H \"Authorization: Bearer $TOKEN\" https://example.org/_matrix/client/v3/pushrules/ |
    kitbag push explain event.json --user @alice:example.org --display-name Alice --rules -
      By the rules that any Matrix server tells.
  kitbag push explain event.json --user @alice:example.org --room room.json --json
      With {\"joined_members\": 2, \"sender_power_level\": 50, \"notification_levels\": {\"room\": 50}} in
      room.json, each of which may be left out.";

#[derive(Args, Clone, Debug)]
pub(crate) struct PushArguments {
    #[command(subcommand)]
    pub(crate) command: PushCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PushCommand {
    /// Tells why an event notifies a user, or does not.
    ///
    /// Prints the decision, and then every rule in the order of evaluation with what its conditions
    /// saw.
    #[command(after_long_help = PUSH_EXPLAIN_EXAMPLES)]
    Explain(ExplainArguments),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArguments {
    /// The file with the event, as JSON; `-` reads it from standard input.
    pub(crate) event: PathBuf,
    /// Whose rules they are, by the whole ID.
    #[arg(long, value_name = "USER")]
    pub(crate) user: String,
    /// The file with the rules, as GET /pushrules/ or the account data m.push_rules tell them; `-`
    /// reads them from standard input. Without it, those of the specification.
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// The display name of the user in the room.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) display_name: String,
    /// The file with what is to be known of the room, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) room: Option<PathBuf>,
    /// The room of an event that does not say it, as in an answer of sync.
    #[arg(long, value_name = "ROOM")]
    pub(crate) room_id: Option<String>,
    /// Print the explanation as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
