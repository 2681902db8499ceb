//! Collections with judged queries, in the layout of the BEIR benchmark: `corpus.jsonl` and
//! `queries.jsonl` with `_id`, `title` and `text`, and `qrels.tsv` or `qrels/test.tsv` with query,
//! document and score.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use lfm2_hub::Error as HubError;

use crate::Result;
use crate::lines::Lines;

/// A document of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// The name that judgements use.
    pub id: String,
    /// The title, often empty.
    pub title: String,
    /// The text, which may be empty where there is a title.
    pub text: String,
}

impl Passage {
    /// Title and text, as models read them.
    pub fn full_text(&self) -> String {
        format!("{} {}", self.title, self.text).trim().to_owned()
    }
}

/// A query of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The name that judgements use.
    pub id: String,
    /// The question.
    pub text: String,
}

/// Documents, queries, and which documents answer which query.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Collection {
    /// The documents, in the order of the file.
    pub documents: Vec<Passage>,
    /// The queries, in the order of the file.
    pub queries: Vec<Query>,
    relevant: BTreeMap<String, BTreeSet<String>>,
    missing: usize,
}

impl Collection {
    /// Reads a folder.
    ///
    /// # Errors
    /// A missing file, or a line that is broken, repeats an id, or judges a query that does not
    /// exist; with file and line.
    pub fn open(folder: &Path) -> Result<Self> {
        let documents = documents(&folder.join("corpus.jsonl"))?;
        let queries = queries(&folder.join("queries.jsonl"))?;
        let mut collection = Self {
            documents,
            queries,
            ..Self::default()
        };
        collection.read_judgements(&judgements(folder)?)?;
        Ok(collection)
    }

    /// The documents that answer a query: those judged above 0.
    pub fn relevant(&self, query: &str) -> HashSet<&str> {
        let ids = self.relevant.get(query).into_iter().flatten();
        ids.map(String::as_str).collect()
    }

    /// The queries with an answer. Others say nothing about a ranking.
    pub fn judged_queries(&self) -> impl Iterator<Item = &Query> {
        let answered = |query: &&Query| self.relevant.contains_key(&query.id);
        self.queries.iter().filter(answered)
    }

    /// How many documents are judged relevant and are not in the corpus. They stay relevant, as in
    /// other evaluations, so no ranking can be perfect.
    pub fn missing_documents(&self) -> usize {
        self.missing
    }

    fn read_judgements(&mut self, path: &Path) -> Result<()> {
        let queries: HashSet<&str> = self.queries.iter().map(|query| query.id.as_str()).collect();
        let documents: HashSet<&str> = self.documents.iter().map(|d| d.id.as_str()).collect();
        let mut lines = Lines::open(path)?;
        while let Some((number, line)) = lines.read()? {
            let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
            let [query, document, score] = fields[..] else {
                let found = fields.len();
                let detail = format!(
                    "expected query, document and score between tabs, found {found} fields"
                );
                return Err(lines.wrong(detail));
            };
            let Ok(score) = score.parse::<f64>() else {
                // The first line names the columns.
                if number == 1 {
                    continue;
                }
                return Err(lines.wrong(format!("expected a number as score, found {score:?}")));
            };
            if !queries.contains(query) {
                return Err(lines.wrong(format!("query {query:?} is not in queries.jsonl")));
            }
            if score <= 0.0 || score.is_nan() {
                continue;
            }
            let relevant = self.relevant.entry(query.to_owned()).or_default();
            if relevant.insert(document.to_owned()) && !documents.contains(document) {
                self.missing += 1;
            }
        }
        if self.relevant.is_empty() {
            let detail = "no query has a relevant document";
            return Err(HubError::invalid_file(path, detail).into());
        }
        Ok(())
    }
}

/// The file with the judgements of a folder.
fn judgements(folder: &Path) -> Result<PathBuf> {
    let names = ["qrels.tsv", "qrels/test.tsv"];
    let mut paths = names.iter().map(|name| folder.join(name));
    paths.find(|path| path.is_file()).ok_or_else(|| {
        let what = format!("judgements in {}", folder.display());
        let hint = format!("expected {}", names.join(" or "));
        HubError::NotFound { what, hint }.into()
    })
}

/// Where ids of one file were seen first.
#[derive(Default)]
struct Seen(HashMap<String, usize>);

impl Seen {
    fn insert(&mut self, lines: &Lines, id: &str, number: usize) -> Result<()> {
        match self.0.insert(id.to_owned(), number) {
            None => Ok(()),
            Some(first) => Err(lines.wrong(format!("id {id:?} is that of line {first} already"))),
        }
    }
}

fn documents(path: &Path) -> Result<Vec<Passage>> {
    let (mut lines, mut seen, mut found) = (Lines::open(path)?, Seen::default(), Vec::new());
    while let Some((number, mut object)) = lines.read_object()? {
        let id = lines.id(&mut object)?;
        let id = id.ok_or_else(|| lines.wrong("\"_id\" is missing"))?;
        seen.insert(&lines, &id, number)?;
        let title = lines.text(&mut object, "title")?;
        let text = lines.text(&mut object, "text")?;
        if title.is_none() && text.is_none() {
            return Err(lines.wrong("\"text\" is missing"));
        }
        found.push(Passage {
            id,
            title: title.unwrap_or_default(),
            text: text.unwrap_or_default(),
        });
    }
    Ok(found)
}

fn queries(path: &Path) -> Result<Vec<Query>> {
    let (mut lines, mut seen, mut found) = (Lines::open(path)?, Seen::default(), Vec::new());
    while let Some((number, mut object)) = lines.read_object()? {
        let id = lines.id(&mut object)?;
        let id = id.ok_or_else(|| lines.wrong("\"_id\" is missing"))?;
        seen.insert(&lines, &id, number)?;
        let text = lines.text(&mut object, "text")?;
        let text = text.ok_or_else(|| lines.wrong("\"text\" is missing"))?;
        found.push(Query { id, text });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORPUS: &str = "{\"_id\": \"a\", \"title\": \"A\", \"text\": \"first\"}\n\n\
                          {\"_id\": 2, \"text\": \"second\", \"metadata\": {}}\n";
    const QUERIES: &str =
        "{\"_id\": \"q\", \"text\": \"which?\"}\n{\"_id\": \"r\", \"text\": \"?\"}\n";
    const JUDGEMENTS: &str = "query-id\tcorpus-id\tscore\nq\ta\t1\nq\t2\t0\nq\tgone\t2\n";

    /// A folder with these files.
    fn folder(corpus: &str, queries: &str, judgements: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("corpus.jsonl"), corpus).unwrap();
        std::fs::write(folder.path().join("queries.jsonl"), queries).unwrap();
        std::fs::write(folder.path().join("qrels.tsv"), judgements).unwrap();
        folder
    }

    #[test]
    fn a_collection_is_read_whole() {
        let folder = folder(CORPUS, QUERIES, JUDGEMENTS);
        let collection = Collection::open(folder.path()).unwrap();
        assert_eq!(collection.documents[0].full_text(), "A first");
        assert_eq!(collection.documents[1].full_text(), "second");
        assert_eq!(collection.documents[1].id, "2");
        assert_eq!(collection.relevant("q"), HashSet::from(["a", "gone"]));
        assert_eq!(collection.missing_documents(), 1);
        let judged: Vec<_> = collection.judged_queries().map(|q| &q.id).collect();
        assert_eq!(judged, ["q"]);
        assert!(collection.relevant("r").is_empty());
    }

    #[test]
    fn judgements_may_lie_in_a_folder_of_their_own() {
        let folder = folder(CORPUS, QUERIES, JUDGEMENTS);
        std::fs::create_dir(folder.path().join("qrels")).unwrap();
        let at = |name| folder.path().join(name);
        std::fs::rename(at("qrels.tsv"), at("qrels/test.tsv")).unwrap();
        let collection = Collection::open(folder.path()).unwrap();
        assert_eq!(collection.judged_queries().count(), 1);
        std::fs::remove_file(at("qrels/test.tsv")).unwrap();
        let error = Collection::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("expected qrels.tsv or qrels/test.tsv"),
            "{error}"
        );
    }

    #[test]
    fn broken_lines_are_named_with_file_and_line() {
        for (corpus, queries, judgements, expected) in [
            (
                "{\"_id\": \"a\"}\n",
                QUERIES,
                JUDGEMENTS,
                "corpus.jsonl:1: \"text\" is missing",
            ),
            (
                "{\"text\": \"a\"}\n",
                QUERIES,
                JUDGEMENTS,
                "corpus.jsonl:1: \"_id\" is missing",
            ),
            (
                "{\"_id\": \"a\",",
                QUERIES,
                JUDGEMENTS,
                "corpus.jsonl:1: expected a json object",
            ),
            (
                "\n[1]\n",
                QUERIES,
                JUDGEMENTS,
                "corpus.jsonl:2: expected a json object",
            ),
            (
                "{\"_id\": \"a\", \"text\": 7}",
                QUERIES,
                JUDGEMENTS,
                "corpus.jsonl:1: \"text\": expected text, found a number",
            ),
            (
                "{\"_id\": 1.5, \"text\": \"\"}",
                QUERIES,
                JUDGEMENTS,
                "corpus.jsonl:1: \"_id\": expected text or a whole number, found a number",
            ),
            (
                "{\"_id\": \"a\", \"text\": \"\"}\n{\"_id\": \"a\", \"text\": \"\"}",
                QUERIES,
                JUDGEMENTS,
                "corpus.jsonl:2: id \"a\" is that of line 1 already",
            ),
            (
                CORPUS,
                "{\"_id\": \"q\"}",
                JUDGEMENTS,
                "queries.jsonl:1: \"text\" is missing",
            ),
            (
                CORPUS,
                QUERIES,
                "q\ta\n",
                "qrels.tsv:1: expected query, document and score",
            ),
            (
                CORPUS,
                QUERIES,
                "q\ta\t1\nq\ta\tx\n",
                "qrels.tsv:2: expected a number as score",
            ),
            (
                CORPUS,
                QUERIES,
                "h\th\th\nz\ta\t1\n",
                "qrels.tsv:2: query \"z\" is not in queries",
            ),
            (
                CORPUS,
                QUERIES,
                "q\ta\t0\n",
                "qrels.tsv: no query has a relevant document",
            ),
        ] {
            let folder = folder(corpus, queries, judgements);
            let error = Collection::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        }
        let folder = folder(CORPUS, QUERIES, JUDGEMENTS);
        std::fs::write(folder.path().join("queries.jsonl"), b"{\"_id\": \"\xff\"}").unwrap();
        let error = Collection::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("queries.jsonl:1: not utf-8 at byte 9"),
            "{error}"
        );
    }
}
