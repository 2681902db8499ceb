//! Maintenance: joining and cleaning segments, and making the compressed form anew.

use std::sync::Arc;

use super::manifest::{Manifest, SegmentEntry};
use super::segment::{Segment, SegmentWriter};
use super::snapshot::Place;
use super::writer::{SEGMENT_BYTES, remove_leftovers, segment_name};
use super::{Bits, Engine, LocalIndex, Maintenance, Result};

/// [`Engine::Auto`] changes over at this many documents.
const MANY_DOCUMENTS: usize = 10_000;

/// Segments with fewer bytes of vectors are small.
const SMALL_BYTES: u64 = 32 << 20;

/// With more small segments than this, joining them is due.
const MANY_SMALL: usize = 16;

/// Maintenance is due for more than one part in this many.
const SHARE: usize = 5;

/// What becomes of the compressed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plaid {
    Keep,
    Drop,
    Build(Bits),
}

/// See [`Index::maintain`](super::Index::maintain).
pub(super) fn maintain(index: &mut LocalIndex, when: Maintenance) -> Result<bool> {
    let _lock = index.lock()?;
    let plaid = plan_plaid(index, when);
    let rewritten = to_rewrite(&index.snapshot.manifest, when, plaid);
    if plaid == Plaid::Keep && !rewritten.contains(&true) {
        return Ok(false);
    }
    let published = next_state(index, &rewritten, plaid).and_then(|next| index.publish(&next));
    if let Err(error) = published {
        remove_leftovers(&index.folder, &index.snapshot.manifest);
        return Err(error);
    }
    index.settle()?;
    Ok(true)
}

fn plan_plaid(index: &LocalIndex, when: Maintenance) -> Plaid {
    let snapshot = &index.snapshot;
    let (manifest, live) = (&snapshot.manifest, snapshot.live());
    let wanted = match manifest.engine {
        Engine::Exact => None,
        Engine::Plaid(bits) => Some(bits),
        Engine::Auto => (live >= MANY_DOCUMENTS
            && super::local::plaid_fits(manifest.dim, Bits::Four.get()))
        .then_some(Bits::Four),
    };
    let Some(bits) = wanted.filter(|_| is_possible(&snapshot.segments)) else {
        return match (&manifest.plaid, when) {
            (Some(_), Maintenance::Now) => Plaid::Drop,
            _ => Plaid::Keep,
        };
    };
    let Some(entry) = &manifest.plaid else {
        return Plaid::Build(bits);
    };
    let covered = |segment: &&SegmentEntry| entry.segments.contains(&segment.name);
    let deleted: usize = (manifest.segments.iter().filter(covered))
        .map(|segment| segment.deleted.len())
        .sum();
    let others = manifest.segments.iter().filter(|segment| !covered(segment));
    let added: usize = others.map(|s| s.documents - s.deleted.len()).sum();
    let stale = entry.bits != bits || (deleted + added) * SHARE > entry.documents;
    if when == Maintenance::Now || stale {
        Plaid::Build(bits)
    } else {
        Plaid::Keep
    }
}

#[cfg(feature = "plaid")]
fn is_possible(segments: &[Arc<Segment>]) -> bool {
    super::plaid::is_possible(segments)
}

#[cfg(not(feature = "plaid"))]
fn is_possible(_: &[Arc<Segment>]) -> bool {
    false
}

/// Which segments are to be written anew. One that the compressed form counts on is left alone as
/// long as that stays.
fn to_rewrite(manifest: &Manifest, when: Maintenance, plaid: Plaid) -> Vec<bool> {
    let free = |segment: &SegmentEntry| {
        let entry = manifest.plaid.as_ref().filter(|_| plaid == Plaid::Keep);
        !entry.is_some_and(|entry| entry.segments.contains(&segment.name))
    };
    let small = |segment: &SegmentEntry| segment.vectors.bytes < SMALL_BYTES;
    let segments = || manifest.segments.iter();
    let count = segments().filter(|s| free(s) && small(s)).count();
    let join = match when {
        Maintenance::WhenDue => count > MANY_SMALL,
        Maintenance::Now => count > 1,
    };
    let wanted = |segment: &SegmentEntry| {
        let deleted = segment.deleted.len();
        let dirty = match when {
            Maintenance::WhenDue => deleted * SHARE > segment.documents,
            Maintenance::Now => deleted > 0,
        };
        free(segment) && (dirty || (join && small(segment)))
    };
    segments().map(wanted).collect()
}

/// Writes the files of the next state.
fn next_state(index: &LocalIndex, rewritten: &[bool], plaid: Plaid) -> Result<Manifest> {
    let mut next = index.snapshot.manifest.clone();
    next.generation += 1;
    next.segments = rewrite(index, rewritten)?;
    match plaid {
        Plaid::Keep => {}
        Plaid::Drop => next.plaid = None,
        Plaid::Build(bits) => {
            next.plaid = None;
            build(index, &mut next, bits)?;
        }
    }
    Ok(next)
}

/// The segments of the next state, in the order they had.
fn rewrite(index: &LocalIndex, rewritten: &[bool]) -> Result<Vec<SegmentEntry>> {
    let manifest = &index.snapshot.manifest;
    let mut next = Vec::new();
    let mut current: Option<SegmentWriter> = None;
    let mut count = 0;
    for (number, entry) in manifest.segments.iter().enumerate() {
        if !rewritten[number] {
            if let Some(done) = current.take() {
                next.push(done.finish()?);
            }
            next.push(entry.clone());
            continue;
        }
        let segment = &index.snapshot.segments[number];
        for document in 0..segment.documents() {
            let place = Place {
                segment: number,
                document,
            };
            if !index.snapshot.alive().has(place) {
                continue;
            }
            let writer = match &mut current {
                Some(writer) => writer,
                None => {
                    let name = segment_name(manifest, count);
                    count += 1;
                    current.insert(SegmentWriter::create(&index.folder, name, manifest.dim)?)
                }
            };
            let vectors = segment.vectors_of(document);
            writer.push(&segment.document(document)?, vectors.view()?)?;
            if writer.vector_bytes() >= SEGMENT_BYTES
                && let Some(done) = current.take()
            {
                next.push(done.finish()?);
            }
        }
    }
    if let Some(done) = current {
        next.push(done.finish()?);
    }
    Ok(next)
}

#[cfg(feature = "plaid")]
fn build(index: &LocalIndex, next: &mut Manifest, bits: Bits) -> Result<()> {
    let mut segments = Vec::with_capacity(next.segments.len());
    for entry in &next.segments {
        let known = index
            .snapshot
            .segments
            .iter()
            .find(|s| s.name() == entry.name);
        segments.push(match known {
            Some(segment) => segment.clone(),
            // Written a moment ago.
            None => {
                let check = super::Check::Lengths;
                Arc::new(Segment::open(&index.folder, entry, next.dim, check)?)
            }
        });
    }
    if super::plaid::is_possible(&segments) {
        let directory = format!("{}{:06}", super::manifest::PLAID_PREFIX, next.generation);
        let entry = super::plaid::build(&index.folder, directory, bits, &segments, next.dim)?;
        next.plaid = Some(entry);
    }
    Ok(())
}

#[cfg(not(feature = "plaid"))]
fn build(_: &LocalIndex, _: &mut Manifest, _: Bits) -> Result<()> {
    Ok(())
}
