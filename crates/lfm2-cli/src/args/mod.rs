//! The command line as plain structs. Nothing here opens a file.

mod analyze;
mod batch;
mod bench;
mod chat;
mod converse;
mod describe;
mod download;
mod embed;
mod eval;
mod eval_retrieval;
mod eval_rows;
mod eval_vl;
mod eval_wer;
mod generate;
mod index;
mod inspect;
mod merge;
mod model;
mod number;
mod pictures;
mod quantize;
mod rerank;
mod sampling;
mod search;
mod speak;
mod speculation;
mod speech;
mod train;
mod transcribe;

use std::num::NonZeroUsize;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use analyze::{
    AnalyzeArgs, AnalyzeCommand, Builtin, DimsArgs, EncoderArgs, EncoderSource, Layers, PairArgs,
    PruneArgs,
};
pub(crate) use batch::BatchArgs;
pub(crate) use bench::{BenchArgs, SpeechTask, TestArgs};
pub(crate) use chat::ChatArgs;
pub(crate) use converse::ConverseArgs;
pub(crate) use describe::{DescribeArgs, Explain};
pub(crate) use download::DownloadArgs;
pub(crate) use embed::EmbedArgs;
pub(crate) use eval::{EvalArgs, EvalCommand, PerplexityArgs};
pub(crate) use eval_retrieval::RetrievalArgs;
pub(crate) use eval_rows::{ChoiceArgs, ChoiceFrame, Gsm8kArgs, IfevalArgs, RecallArgs, RowArgs};
pub(crate) use eval_vl::VlArgs;
pub(crate) use eval_wer::WerArgs;
pub(crate) use generate::GenerateArgs;
pub(crate) use index::{
    AddArgs, Backend, BackendArgs, BuildArgs, DeleteArgs, IndexArgs, IndexCommand, IndexInfoArgs,
    ReportArgs,
};
pub(crate) use inspect::InspectArgs;
pub(crate) use merge::{MergeArgs, MergeDtype, MergeMethod, MergeRescale};
pub(crate) use model::{
    Activations, DeviceArgs, DeviceKind, MODEL_VARIABLE, ModelArgs, PACKED_CACHE_VARIABLE,
    RETRIEVAL_MODEL_VARIABLE,
};
pub(crate) use pictures::{BudgetArg, PICTURE_MODEL_VARIABLE, PictureArgs};
pub(crate) use quantize::QuantizeArgs;
pub(crate) use rerank::RerankArgs;
pub(crate) use sampling::SamplingArgs;
pub(crate) use search::SearchArgs;
pub(crate) use speak::SpeakArgs;
pub(crate) use speculation::SpeculationArgs;
pub(crate) use speech::{SPEECH_MODEL_VARIABLE, SpeechSampling};
pub(crate) use train::{ResumeMode, ScoreArgs, TeachArgs, TrainArgs, TrainCommand, TrainRun};
pub(crate) use transcribe::{TranscribeArgs, TranscriptFormat};

const EXAMPLES: &str = "\
Examples:
  lfm2 generate \"Once upon a time\"                         a story by the built-in model
  lfm2 chat                                                a conversation with it
  lfm2 chat --model LiquidAI/LFM2-350M                     ... with a model of the Hub
  lfm2 describe cat.jpg -m LiquidAI/LFM2-VL-450M           what is in a picture
  lfm2 index build notes.index ~/notes                     make a folder searchable
  lfm2 search notes.index \"where did we park?\"            ... and search it
  lfm2 transcribe talk.mp3 --model LiquidAI/LFM2.5-Audio-1.5B
  lfm2 inspect LFM2-350M-Q4_0.gguf                         what is in a file
  lfm2 quantize ./LFM2-350M LFM2-350M-Q4_0.gguf --type q4_0
  lfm2 bench --synthetic lfm2-1.2b --quantization q4_0     speed without a download

A SOURCE is a folder with config.json and safetensors files, a GGUF file, or a model of the Hugging
Face Hub: organisation/name, or organisation/name:file.gguf, each with an optional @revision.

Environment:
  LFM2_MODEL    the model when --model is not given
  LFM2_RETRIEVAL_MODEL  the same for index, search, embed, rerank and eval retrieval
  LFM2_VL_MODEL  the same for describe
  LFM2_SPEECH_MODEL  the same for transcribe, speak and converse
  LFM2_LOG      the log level when --log is not given
  LFM2_PACKED_CACHE  a folder for weights sorted for the processor, or off
  LFM2_HISTORY  the file with the input history of chat and search; empty for none
  HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE as in other Hub programs

Exit codes:
  0 done                     5 not supported by this build or model
  1 a fault of this program  6 a limit was reached
  2 wrong usage or input     7 busy, try again later
  3 not found                8 a file or the network failed
  4 damaged model or data    130 stopped with Ctrl-C";

/// LFM2 language models on this machine.
#[derive(Debug, Parser)]
#[command(name = "lfm2", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Threads to compute with [default: one per core]
    #[arg(
        long,
        global = true,
        value_name = "N",
        value_parser = number::threads,
        allow_negative_numbers = true
    )]
    pub(crate) threads: Option<NonZeroUsize>,
    /// What to tell about the work on stderr
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "LEVEL",
        env = "LFM2_LOG",
        hide_env = true
    )]
    pub(crate) log: LogLevel,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogLevel {
    Off,
    Error,
    #[default]
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a text
    Generate(GenerateArgs),
    /// Continue many texts, several at a time
    Batch(BatchArgs),
    /// Talk with a model
    Chat(ChatArgs),
    /// Ask about pictures
    Describe(DescribeArgs),
    /// Make texts searchable
    Index(IndexArgs),
    /// Find texts that answer a question
    Search(SearchArgs),
    /// Turn texts into vectors
    Embed(EmbedArgs),
    /// Sort texts by how well they answer a question
    Rerank(RerankArgs),
    /// Write down what is said
    Transcribe(TranscribeArgs),
    /// Read a text aloud
    Speak(SpeakArgs),
    /// Answer a spoken question in speech
    Converse(ConverseArgs),
    /// Show what a model is made of
    Inspect(InspectArgs),
    /// Fetch a model from the Hub
    Download(DownloadArgs),
    /// Write a model as a GGUF file
    Quantize(QuantizeArgs),
    /// Measure speed and memory
    Bench(BenchArgs),
    /// Train a model
    Train(TrainArgs),
    /// Make one model out of several
    Merge(MergeArgs),
    /// Measure how good a model is
    Eval(EvalArgs),
    /// Find out which dimension of an embedding says what
    Analyze(AnalyzeArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
