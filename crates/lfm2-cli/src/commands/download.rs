//! `lfm2 download`.

use std::io::{self, Write};

use anyhow::Result;
use lfm2::ModelSource;
use lfm2::hub::{Parts, Refresh, fetch_checkpoint, fetch_gguf};

use crate::args::DownloadArgs;
use crate::exit::invalid;
use crate::ui::open;

const LICENCE: &str = "LFM2 weights and tokenizers are under the LFM Open License v1.0: free for research, for non-profits,
and commercially below 10 million US dollars of yearly revenue. See LICENSE in the repository.";

pub(crate) fn run(args: DownloadArgs) -> Result<()> {
    if let (true, Some(revision)) = (args.source.has_revision, &args.revision) {
        return Err(invalid(format!(
            "expected one revision, found one behind the @ and --revision {revision}"
        )));
    }
    let mut options = open::files(false);
    if args.force {
        options = options.refresh(Refresh::All);
    }
    if let Some(folder) = args.cache_dir {
        options = options.cache_dir(folder);
    }
    let (id, path) = match args.source.source {
        ModelSource::Hub { id, revision } => {
            let revision = args.revision.unwrap_or(revision);
            let folder = fetch_checkpoint(&id, &revision, Parts::All, &options)?.folder;
            (id, folder)
        }
        ModelSource::HubGguf { id, revision, file } => {
            let revision = args.revision.unwrap_or(revision);
            let path = fetch_gguf(&id, &revision, &file, &options)?;
            (id, path)
        }
        ModelSource::Dir(path) | ModelSource::Gguf(path) => {
            return Err(invalid(format!(
                "{} is a path, not organisation/name",
                path.display()
            )));
        }
    };
    if id.owner().eq_ignore_ascii_case("LiquidAI") {
        eprintln!("{LICENCE}");
    }
    writeln!(io::stdout(), "{}", path.display())?;
    Ok(())
}
