use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use lfm2::ModelSource;
use lfm2::sentence::Site;
use lfm2_analysis::{Contrast, LogP, Select, Solver, SplitBy, StudyOptions};

use super::{DeviceArgs, ModelArgs, number};

const DIMS: &str = "\
Sentences come in pairs that differ in one property only: tense, negation, voice and so on. Every
dimension of their embeddings gets a score (EDI, arXiv 2504.14766) for each property, and regressions
on some dimensions show what the scores are worth. An embedding is the mean over the tokens of a
sentence, at the end of the model or behind a layer.

A file of pairs is CSV with the columns Sentence1 and Sentence2, or JSON lines; its name is that of
the property. The model is a text model, a retrieval model or a BERT-style encoder.

DIR gets report.html to read, tables as CSV, everything as study.json, pictures as SVG and PNG, and the
embeddings, so that the same command with other rules encodes nothing again.

Examples:
  lfm2 analyze dims --out study                              the built-in model on generated pairs
  lfm2 analyze dims --out study --layers all                 ... and where properties become readable
  lfm2 analyze dims --out study --model lfm2-tiny-colbert    the built-in retrieval model
  lfm2 analyze dims --out study --model LiquidAI/LFM2-350M --only negation --only tense
  lfm2 analyze dims --out study --model ./all-MiniLM-L6-v2 --pairs pairs/*.csv --published";

const PRUNE: &str = "\
Half of the judged questions of the collection say what each output dimension of the model adds to the
distance between documents that answer and others; the N dimensions that add most are kept. The other
half, which had no say, measures nDCG@10, beside that of N dimensions drawn at random.

DIR gets dimensions.csv and prune.csv, and for each N the folder keep-N: the model with only these
dimensions, which every command opens with --model.

DIR of --data has corpus.jsonl, queries.jsonl and qrels.tsv or qrels/test.tsv: the layout of BEIR.

Examples:
  lfm2 analyze prune --keep 24 --data scifact --out pruned
  lfm2 analyze prune --keep 96,64,32 --data scifact --out pruned --model ./LFM2-ColBERT-350M
  lfm2 index build docs.index docs --model pruned/keep-64";

/// Find out which dimension of an embedding says what
#[derive(Debug, Args)]
pub(crate) struct AnalyzeArgs {
    #[command(subcommand)]
    pub(crate) command: AnalyzeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AnalyzeCommand {
    /// Which dimension carries which property of sentences
    Dims(DimsArgs),
    /// Leave out the dimensions that retrieval needs least
    Prune(PruneArgs),
}

/// Which dimension carries which property of sentences
#[derive(Debug, Args)]
#[command(after_help = DIMS)]
pub(crate) struct DimsArgs {
    /// The folder for the report
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) pairs: PairArgs,
    /// The layer to study: its number, 0 for the embeddings, or final
    #[arg(long, value_name = "LAYER", default_value = "final")]
    pub(crate) layer: Site,
    /// Show from which layer on properties can be read: all, or numbers between commas
    #[arg(long, value_name = "LAYERS")]
    pub(crate) layers: Option<Layers>,
    /// Leave the tokens that the model puts around a sentence out of means
    #[arg(long)]
    pub(crate) without_frame: bool,
    /// Keep embeddings in this folder [default: embeddings in the folder of the report]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,
    /// Write JSON: one line for the result
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) rules: RuleArgs,
    #[command(flatten)]
    pub(crate) model: EncoderArgs,
}

/// Which sentences.
#[derive(Debug, Args)]
#[command(next_help_heading = "Pairs")]
pub(crate) struct PairArgs {
    /// Read pairs from these files, one property each
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "generated")]
    pub(crate) pairs: Vec<PathBuf>,
    /// Write pairs with the built-in grammar; the default
    #[arg(long)]
    pub(crate) generated: bool,
    /// Pairs per property: how many are written, or at most used of a file [default: 1000 written, all of a file]
    #[arg(
        long,
        value_name = "N",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) count: Option<NonZeroUsize>,
    /// Write only this property; may be given several times [default: all ten]
    #[arg(long, value_name = "NAME", value_parser = contrast, conflicts_with = "pairs")]
    pub(crate) only: Vec<Contrast>,
}

fn contrast(text: &str) -> Result<Contrast, String> {
    Contrast::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Contrast::ALL.into_iter().map(Contrast::name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// By which rules.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Rules")]
pub(crate) struct RuleArgs {
    /// Follow the paper's code; rules given beside it come first
    #[arg(long)]
    pub(crate) published: bool,
    /// What stays together when rows are split for training and test [default: pair]
    #[arg(long, value_enum)]
    split: Option<SplitRule>,
    /// Which rows test and mutual information see [default: train-only]
    #[arg(long, value_enum)]
    select: Option<SelectRule>,
    /// How a p-value becomes a score [default: exact]
    #[arg(long, value_enum)]
    log_p: Option<LogRule>,
    /// How regressions are fitted [default: exact]
    #[arg(long, value_enum)]
    solver: Option<SolverRule>,
    /// Dimensions that elimination leaves
    #[arg(
        long,
        value_name = "N",
        default_value = "20",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    keep: NonZeroUsize,
    /// Seed of generated pairs and of splits
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
}

impl RuleArgs {
    /// The rules of a study.
    pub(crate) fn options(self) -> StudyOptions {
        let mut options = match self.published {
            true => StudyOptions::published(),
            false => StudyOptions::default(),
        };
        options.split = match self.split {
            Some(SplitRule::Sentence) => SplitBy::Sentence,
            Some(SplitRule::Pair) => SplitBy::Pair,
            None => options.split,
        };
        options.select = match self.select {
            Some(SelectRule::All) => Select::All,
            Some(SelectRule::TrainOnly) => Select::TrainOnly,
            None => options.select,
        };
        options.log_p = match self.log_p {
            Some(LogRule::Published) => LogP::Published,
            Some(LogRule::Exact) => LogP::Exact,
            None => options.log_p,
        };
        options.solver = match self.solver {
            Some(SolverRule::Exact) => Solver::Exact,
            Some(SolverRule::Library) => Solver::Library,
            None => options.solver,
        };
        options.keep = self.keep.get();
        options.seed = self.seed;
        options
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitRule {
    /// Nothing: a sentence can be tested whose near-twin was learned
    Sentence,
    /// Both sentences of a pair, and pairs that share one
    Pair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SelectRule {
    /// All, also those that accuracies are measured on
    All,
    /// Only those that regressions learn from
    TrainOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogRule {
    /// -ln(p + 1e-15): all p-values below about 1e-15 count the same
    Published,
    /// -ln p
    Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SolverRule {
    /// To the minimum
    Exact,
    /// As scikit-learn, which stops before it
    Library,
}

/// Which layers a sweep goes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layers {
    All,
    These(Vec<Site>),
}

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let sites: Result<Vec<Site>, String> =
            text.split(',').map(|part| part.trim().parse()).collect();
        let mut sites = sites.map_err(|wrong| format!("{wrong}, or \"all\" alone"))?;
        sites.sort_unstable();
        sites.dedup();
        Ok(Self::These(sites))
    }
}

/// Which encoder.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct EncoderArgs {
    /// A folder, a GGUF file or organisation/name[@revision]; the built-in models are lfm2-tiny-stories and
    /// lfm2-tiny-colbert [default: lfm2-tiny-stories]
    #[arg(short, long, value_name = "SOURCE")]
    pub(crate) model: Option<EncoderSource>,
    /// Open no connection; use what is in the local cache
    #[arg(long)]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// A model that is compiled into the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    Stories,
    Colbert,
}

impl Builtin {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stories => "lfm2-tiny-stories",
            Self::Colbert => "lfm2-tiny-colbert",
        }
    }
}

/// Where an encoder is.
#[derive(Debug, Clone)]
pub(crate) enum EncoderSource {
    Builtin(Builtin),
    Source(ModelSource),
}

impl FromStr for EncoderSource {
    type Err = lfm2::hub::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = [Builtin::Stories, Builtin::Colbert];
        match named.into_iter().find(|model| model.name() == text) {
            Some(model) => Ok(Self::Builtin(model)),
            None => Ok(Self::Source(text.parse()?)),
        }
    }
}

/// Leave out the dimensions that retrieval needs least
#[derive(Debug, Args)]
#[command(after_help = PRUNE)]
pub(crate) struct PruneArgs {
    /// How many dimensions to keep, several numbers between commas
    #[arg(
        long,
        value_name = "N",
        required = true,
        value_delimiter = ',',
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) keep: Vec<NonZeroUsize>,
    /// The collection: a folder in the layout of BEIR
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The folder for tables and pruned models
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Use only this many questions, from the start
    #[arg(
        long,
        value_name = "N",
        value_parser = number::at_least_one,
        allow_negative_numbers = true
    )]
    pub(crate) limit: Option<NonZeroUsize>,
    /// Seed of the dimensions drawn at random
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,
    /// Write JSON: one line for the result
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_in_order_and_once() {
        assert_eq!("all".parse(), Ok(Layers::All));
        let found = "final, 3,0,3".parse();
        assert_eq!(
            found,
            Ok(Layers::These(vec![
                Site::Layer(0),
                Site::Layer(3),
                Site::Final
            ]))
        );
        for text in ["", "1,", "last", "-1"] {
            assert!(
                text.parse::<Layers>().unwrap_err().contains("all"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_rule_comes_before_the_published_ones() {
        let rules = RuleArgs {
            published: true,
            split: Some(SplitRule::Pair),
            select: None,
            log_p: None,
            solver: None,
            keep: NonZeroUsize::MIN,
            seed: 7,
        };
        let options = rules.options();
        assert_eq!(
            (options.split, options.select),
            (SplitBy::Pair, Select::All)
        );
        assert_eq!((options.keep, options.seed), (1, 7));
    }

    #[test]
    fn built_in_models_have_names() {
        let source = |text: &str| text.parse::<EncoderSource>().unwrap();
        assert!(matches!(
            source("lfm2-tiny-colbert"),
            EncoderSource::Builtin(Builtin::Colbert)
        ));
        assert!(matches!(source("a/b"), EncoderSource::Source(_)));
    }
}
