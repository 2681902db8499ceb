//! Writes pairs of sentences of all ten contrasts as CSV files.
//!
//! ```sh
//! cargo run --release -p lfm2-analysis --example pairs -- OUT [COUNT [SEED]]
//! ```

use std::path::Path;

use anyhow::{Context, Result};
use lfm2_analysis::{Contrast, generate};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let out = Path::new(
        arguments
            .first()
            .context("usage: pairs OUT [COUNT [SEED]]")?,
    );
    let count = arguments.get(1).map_or(Ok(1000), |count| count.parse())?;
    let seed = arguments.get(2).map_or(Ok(0), |seed| seed.parse())?;
    std::fs::create_dir_all(out)?;
    for contrast in Contrast::ALL {
        let pairs = generate(contrast, count, seed)?;
        std::fs::write(out.join(format!("{}.csv", contrast.name())), pairs.to_csv())?;
    }
    Ok(())
}
