//! The experiments on methods of training: each trains small models on the stories with three seeds and
//! tells what came out.
//!
//! ```sh
//! cargo run --release -p lfm2-examples --example experiments              # all, about an hour
//! cargo run --release -p lfm2-examples --example experiments -- merging   # one of them
//! cargo run --release -p lfm2-examples --example experiments -- --tables  # tables and pictures again
//! ```
//!
//! Options: `--seeds 1,2,3`, `--threads N`, `--work FOLDER` for the runs (`runs/experiments`). A run that
//! is there already is not done again, and one that was stopped goes on. Figures are written to
//! `examples/experiments/results`, pictures to `docs/experiments`; `docs/experiments.md` tells what they say.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

mod balance;
mod curriculum;
mod distill;
mod lab;
mod measure;
mod merging;
mod packing;
mod picture;
mod preference;
mod recipes;
mod results;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use lab::Lab;
use results::{Results, Row};

/// Pools that split single operations would only make training slower; their size is read from the
/// environment once.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

/// One question, and how it is asked with one seed.
struct Experiment {
    name: &'static str,
    run: fn(&Lab, u64) -> Result<Vec<Row>>,
}

const EXPERIMENTS: [Experiment; 6] = [
    Experiment {
        name: "distill",
        run: distill::run_seed,
    },
    Experiment {
        name: "preference",
        run: preference::run_seed,
    },
    Experiment {
        name: "merging",
        run: merging::run_seed,
    },
    Experiment {
        name: "curriculum",
        run: curriculum::run_seed,
    },
    Experiment {
        name: "balance",
        run: balance::run_seed,
    },
    Experiment {
        name: "packing",
        run: packing::run_seed,
    },
];

/// What the command line says.
struct Args {
    names: Vec<String>,
    seeds: Vec<u64>,
    threads: usize,
    work: PathBuf,
    only_tables: bool,
}

fn main() -> Result<()> {
    if std::env::var(CANDLE_THREADS).is_err() {
        let mut again = Command::new(std::env::current_exe()?);
        let status = again
            .args(std::env::args_os().skip(1))
            .env(CANDLE_THREADS, "1")
            .status()?;
        std::process::exit(status.code().unwrap_or(1));
    }
    lfm2::nn::keep_freed_memory();
    run(&Args::parse(std::env::args().skip(1))?)
}

fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let lab = Lab {
        work: args.work.clone(),
        data: root.join("data/stories"),
        threads: args.threads,
    };
    for experiment in EXPERIMENTS.iter().filter(|e| args.asks_for(e.name)) {
        let name = experiment.name;
        let path = root.join(format!("examples/experiments/results/{name}.json"));
        let results = match args.only_tables {
            true => Results::read(&path)?,
            false => {
                let runs = args.seeds.iter().map(|&seed| (experiment.run)(&lab, seed));
                let results = Results {
                    rows: runs.collect::<Result<Vec<_>>>()?.concat(),
                };
                results.write(&path, name)?;
                results
            }
        };
        println!("\n{name}\n\n{}", results.table());
        picture::write(&root.join(format!("docs/experiments/{name}.svg")), &results)?;
    }
    Ok(())
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut args = Self {
            names: Vec::new(),
            seeds: vec![1, 2, 3],
            threads: 0,
            work: "runs/experiments".into(),
            only_tables: false,
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                "--tables" => args.only_tables = true,
                "--threads" => args.threads = value()?.parse().context("--threads")?,
                "--work" => args.work = value()?.into(),
                "--seeds" => {
                    let seeds = value()?;
                    let seeds = seeds.split(',').map(str::parse);
                    args.seeds = seeds.collect::<Result<_, _>>().context("--seeds")?;
                }
                name if EXPERIMENTS.iter().any(|e| e.name == name) => args.names.push(word),
                _ => {
                    let names = EXPERIMENTS.map(|e| e.name).join(", ");
                    bail!("expected an option or one of {names}, found {word}");
                }
            }
        }
        Ok(args)
    }

    fn asks_for(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|asked| asked == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Args> {
        Args::parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_is_asked_for_is_done_and_nothing_else() {
        let args = parse("merging --seeds 4,5 --threads 2 --work x").unwrap();
        assert_eq!((args.seeds, args.threads), (vec![4, 5], 2));
        let args = parse("merging packing").unwrap();
        assert!(args.asks_for("packing") && !args.asks_for("balance"));
        assert!(parse("").unwrap().asks_for("balance"));
        assert!(
            parse("cooking").is_err() && parse("--seeds a").is_err() && parse("--work").is_err()
        );
    }

    /// The page says what the files say.
    #[test]
    fn the_tables_of_the_page_are_those_of_the_results() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let page = std::fs::read_to_string(root.join("docs/experiments.md")).unwrap();
        for Experiment { name, .. } in EXPERIMENTS {
            let path = root.join(format!("examples/experiments/results/{name}.json"));
            if !path.exists() {
                assert!(!page.contains(&format!("experiments/{name}.svg")), "{name}");
                continue;
            }
            let table = Results::read(&path).unwrap().table();
            assert!(page.contains(&table), "{name}: expected\n{table}");
            assert!(page.contains(&format!("experiments/{name}.svg")), "{name}");
        }
    }
}
