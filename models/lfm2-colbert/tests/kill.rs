//! An index survives the death of its writer at any moment.
//!
//! This test program runs itself again as a writer that builds, adds, replaces, deletes and maintains
//! without end, kills it at a random moment, and compares what is in the folder with what should be
//! there. What a generation holds follows from its number, so the state has to be the last one that
//! the writer reported, or the one after. `LFM2_KILLS` says how often (40 times without it).
#![allow(clippy::unwrap_used)] // also in the helpers of tests
#![cfg(feature = "plaid")] // so that maintenance always has something to do

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lfm2_colbert::index::{
    self, Bits, CreateOptions, Document, Duplicates, Engine, Index, Maintenance, OpenOptions,
    SearchOptions, WriteOptions,
};
use lfm2_kernels::MatRef;

const DIM: usize = 8;
const FOLDER: &str = "LFM2_TEST_KILL_FOLDER";
/// Ids of the documents that come and go.
const IDS: u64 = 60;
/// Documents of the build, for which the compressed form is worth it.
const BUILT: u64 = 160;
/// What the writer says before anything else, and after a commit.
const STARTED: &str = "started";
const COMMITTED: &str = "committed";
/// Long enough for anything the writer does.
const PATIENCE: Duration = Duration::from_secs(120);

/// Mixes numbers into one.
fn mix(values: &[u64]) -> u64 {
    values.iter().fold(0x9e37_79b9_7f4a_7c15, |state, value| {
        let state = (state ^ value).wrapping_mul(0xff51_afd7_ed55_8ccd);
        state ^ (state >> 33)
    })
}

/// A document's vectors: they follow from its id and the generation that put it.
fn vectors(id: u64, generation: u64) -> Vec<f32> {
    let rows = if id >= IDS {
        8
    } else {
        mix(&[id, generation]) % 5
    };
    let value = |at| (mix(&[id, generation, at]) % 17) as f32 / 16.0 - 0.5;
    (0..rows * DIM as u64).map(value).collect()
}

/// One change of an index.
enum Change {
    Put(u64),
    Delete(u64),
}

/// What turns the generation before into this one; nothing for maintenance.
fn changes(generation: u64) -> Vec<Change> {
    match generation {
        1 => (IDS..IDS + BUILT).map(Change::Put).collect(),
        _ if generation % 5 == 2 => Vec::new(),
        _ => (0..6)
            .map(|number| {
                let id = mix(&[generation, number]) % IDS;
                if mix(&[generation, number, 1]).is_multiple_of(3) {
                    Change::Delete(id)
                } else {
                    Change::Put(id)
                }
            })
            .collect(),
    }
}

/// Everything that is in an index of this generation.
fn expected(generation: u64) -> BTreeMap<String, Vec<f32>> {
    let mut documents = BTreeMap::new();
    for generation in 1..=generation {
        for change in changes(generation) {
            match change {
                Change::Put(id) => documents.insert(id.to_string(), vectors(id, generation)),
                Change::Delete(id) => documents.remove(&id.to_string()),
            };
        }
    }
    documents
}

/// The writer, in a process of its own; nothing otherwise.
#[test]
fn writer() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    println!("{STARTED}");
    let mut index = if index::exists(folder) {
        index::open(folder, &OpenOptions::default()).unwrap()
    } else {
        let options = CreateOptions::new("model", DIM).with_engine(Engine::Plaid(Bits::Two));
        index::create(folder, &options).unwrap()
    };
    loop {
        let generation = index.info().generation + 1;
        step(&mut *index, generation);
        assert_eq!(index.info().generation, generation);
        println!("{COMMITTED} {generation}");
    }
}

fn step(index: &mut dyn Index, generation: u64) {
    let changes = changes(generation);
    if changes.is_empty() {
        assert!(index.maintain(Maintenance::Now).unwrap());
        return;
    }
    let options = WriteOptions::default().with_duplicates(Duplicates::Replace);
    let mut writer = index.writer(&options).unwrap();
    // So that there is something to commit whatever is deleted.
    for change in changes {
        match change {
            Change::Put(id) => {
                let vectors = vectors(id, generation);
                let view = MatRef::new(&vectors, vectors.len() / DIM, DIM).unwrap();
                writer.put(&Document::new(id.to_string()), view).unwrap();
            }
            Change::Delete(id) => {
                writer.delete(&id.to_string()).unwrap();
            }
        }
    }
    assert_eq!(writer.commit().unwrap(), generation);
}

/// Starts a writer, lets it report `commits` times, kills it `delay` later, and gives the last
/// generation that it reported.
fn kill_after(folder: &Path, commits: u64, delay: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = output.lines().map_while(Result::ok);
        lines.for_each(|line| sender.send(line).unwrap());
    });
    let mut lines = Vec::new();
    // The harness writes lines of its own, and some on the same line.
    let reports = |lines: &[String], report: &str| {
        let count = lines.iter().filter(|line| line.contains(report)).count();
        count as u64
    };
    while reports(&lines, STARTED) == 0 || reports(&lines, COMMITTED) < commits {
        lines.push(receiver.recv_timeout(PATIENCE).unwrap());
    }
    let deadline = Instant::now() + delay;
    while let Ok(line) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        lines.push(line);
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    lines.extend(receiver);
    reader.join().unwrap();
    assert_ne!(status.code(), Some(101), "the writer failed: {lines:?}");
    let reported = lines.iter().filter_map(|line| line.rsplit_once(COMMITTED));
    let mut generations = reported.map(|(_, generation)| generation.trim().parse().unwrap());
    generations.next_back().unwrap_or(0)
}

/// Compares the index in a folder with what its generation should hold, and gives that.
fn check(folder: &Path, least: u64) -> u64 {
    if !index::exists(folder) {
        assert_eq!(least, 0, "the index is gone");
        return 0;
    }
    let index = index::open(folder, &OpenOptions::default()).unwrap();
    let generation = index.info().generation;
    assert!(
        generation == least || generation == least + 1,
        "reported {least}, found {generation}"
    );
    let content = |id: String| {
        let vectors = index.vectors(&id).unwrap().unwrap();
        (id, vectors.as_slice().to_vec())
    };
    let found: BTreeMap<_, _> = index.ids().unwrap().into_iter().map(content).collect();
    assert_eq!(found, expected(generation), "generation {generation}");
    let query = MatRef::new(&[0.25; 2 * DIM], 2, DIM).unwrap();
    let hits = index.search(query, &SearchOptions::top(10)).unwrap();
    assert_eq!(hits.len(), found.len().min(10));
    generation
}

#[test]
fn an_index_survives_the_death_of_its_writer_at_any_moment() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let kills = std::env::var("LFM2_KILLS").map_or(40, |kills| kills.parse().unwrap());
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut folder = tempfile::tempdir().unwrap();
    let mut generation = 0;
    let (mut commits, mut halves) = (0, 0);
    for kill in 0..kills {
        // Every eighth time from the beginning, so that builds are hit too.
        if kill % 8 == 0 {
            folder = tempfile::tempdir().unwrap();
            generation = 0;
        }
        let delay = Duration::from_micros(mix(&[seed, kill]) % 30_000);
        let reported = kill_after(folder.path(), mix(&[seed, kill, 1]) % 3, delay);
        let reported = reported.max(generation);
        let found = check(folder.path(), reported);
        commits += found - generation;
        halves += usize::from(rubbish(folder.path()) > 0);
        generation = found;
    }
    println!("{kills} kills, {halves} with something half written, {commits} commits");
    // Whatever dead writers left goes with the next one.
    let mut index = index::open(folder.path(), &OpenOptions::default()).unwrap();
    step(&mut *index, generation + 1);
    assert_eq!(check(folder.path(), generation + 1), generation + 1);
    assert_eq!(rubbish(folder.path()), 0);
}

/// How many files there are beside those of the index, its manifest and its lock.
fn rubbish(folder: &Path) -> usize {
    let Ok(index) = index::open(folder, &OpenOptions::default()) else {
        return 0;
    };
    let info = index.info();
    let files = std::fs::read_dir(folder).unwrap().count();
    files - (2 + 2 * info.segments + usize::from(info.in_plaid > 0))
}
