//! `lfm2 embed`.

use std::io;

use anyhow::Result;
use lfm2::hub::Specials;
use lfm2::retrieval::{RetrievalModel, TokenVectors};
use serde::Serialize;

use crate::args::EmbedArgs;
use crate::exit::Stopped;
use crate::ui::interrupt::Interrupt;
use crate::ui::{input, json_line, open};

/// Texts that are encoded together.
const BATCH: usize = 64;

/// The line of a text.
#[derive(Debug, Serialize)]
struct Row<'a> {
    text: &'a str,
    /// The tokens whose vectors these are; none where a vector is that of the whole text.
    tokens: Vec<String>,
    /// Whether the end of the text was left out.
    cut: bool,
    vectors: Vec<&'a [f32]>,
}

pub(crate) fn run(args: &EmbedArgs) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let (model, _) = open::retrieval_model(&args.model, None)?;
    let watch = interrupt.watch();
    let write = |texts: &[String]| {
        let vectors = match args.query {
            true => model.encode_queries(texts)?,
            false => model.encode_documents(texts)?,
        };
        for (text, vectors) in texts.iter().zip(&vectors) {
            json_line(&row(&model, text, vectors)?)?;
        }
        match watch.is_cancelled() {
            true => Err(Stopped.into()),
            false => Ok(()),
        }
    };
    if args.texts.len() == 1 && args.texts.first().is_some_and(|text| text == "-") {
        let mut lines = input::TextLines::new(io::stdin().lock(), "stdin");
        let mut batch = Vec::with_capacity(BATCH);
        while let Some((_, line)) = lines.read()? {
            batch.push(line);
            if batch.len() == BATCH {
                write(&batch)?;
                batch.clear();
            }
        }
        return write(&batch);
    }
    args.texts.chunks(BATCH).try_for_each(write)
}

fn row<'a>(model: &RetrievalModel, text: &'a str, vectors: &'a TokenVectors) -> Result<Row<'a>> {
    let tokens = vectors.ids().iter();
    let tokens = tokens.map(|id| model.tokenizer().decode(&[*id], Specials::Keep));
    Ok(Row {
        text,
        tokens: match model {
            RetrievalModel::LateInteraction(_) => tokens.collect::<Result<_, _>>()?,
            RetrievalModel::SingleVector(_) => Vec::new(),
        },
        cut: vectors.is_cut(),
        vectors: vectors.iter().collect(),
    })
}
