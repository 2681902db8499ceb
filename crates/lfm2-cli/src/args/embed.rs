use clap::Args;

use super::ModelArgs;

const EXAMPLES: &str = "\
Every text becomes one line of JSON with `text`, `tokens` and `vectors`: a list of unit vectors, one
for each token that is kept. A model with one vector per text writes a list of one.

Examples:
  lfm2 embed \"The wing was placed in the tunnel.\"
  lfm2 embed --query \"what is lift?\" | jq '.vectors | length'
  lfm2 embed - < lines.txt > vectors.jsonl";

/// Turn texts into vectors
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EmbedArgs {
    /// The texts, or - to read them from stdin, one per line
    #[arg(required = true, value_name = "TEXT")]
    pub(crate) texts: Vec<String>,
    /// Read the texts as questions, not as documents
    #[arg(long)]
    pub(crate) query: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
