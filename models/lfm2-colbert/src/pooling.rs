//! Fewer vectors per document: those that are alike become their mean.

use crate::{Result, TokenVectors};

/// How many vectors at the start of a document are left alone, as the reference does.
pub const PROTECTED: usize = 1;

/// Pools every document to about a part of `1 / factor` of its vectors, see [`pool`].
///
/// # Errors
/// As [`pool`].
pub fn pool_documents(documents: &[TokenVectors], factor: usize) -> Result<Vec<TokenVectors>> {
    let pooled = documents.iter();
    pooled
        .map(|document| pool(document, factor, PROTECTED))
        .collect()
}

/// Keeps the first `protected` vectors; clusters the other `n` by Ward's method over `1 - cosine` into
/// at most `max(n / factor, 1)` groups, and takes the mean of each. Means are shorter than 1 and stay
/// so. A factor of 0 or 1 changes nothing.
///
/// The order is that of the first member of each group, whose id and place stand for it.
///
/// # Errors
/// [`HubError::InvalidInput`](lfm2_hub::Error::InvalidInput) when a vector is not finite.
pub fn pool(document: &TokenVectors, factor: usize, protected: usize) -> Result<TokenVectors> {
    let protected = protected.min(document.rows());
    let (dim, n) = (document.dim(), document.rows() - protected);
    let groups = n.checked_div(factor).map_or(n, |groups| groups.max(1));
    if groups >= n {
        return Ok(document.clone());
    }
    if document.as_slice().iter().any(|value| !value.is_finite()) {
        return Err(crate::Error::input(
            "a vector that is not finite cannot be pooled",
        ));
    }
    let rows: Vec<&[f32]> = document.iter().skip(protected).collect();
    let labels = cut(&ward(&rows), n, groups);

    let mut values = document.as_slice()[..protected * dim].to_vec();
    let mut ids = document.ids()[..protected].to_vec();
    let mut positions = document.positions()[..protected].to_vec();
    for first in (0..n).filter(|&row| !labels[..row].contains(&labels[row])) {
        let members = (first..n).filter(|&row| labels[row] == labels[first]);
        let mut sum = vec![0.0; dim];
        let mut count = 0u32;
        for row in members {
            sum.iter_mut()
                .zip(rows[row])
                .for_each(|(sum, value)| *sum += value);
            count += 1;
        }
        values.extend(sum.iter().map(|sum| sum / count as f32));
        ids.push(document.ids()[protected + first]);
        positions.push(document.positions()[protected + first]);
    }
    let pooled = TokenVectors::with_positions(values, dim, ids, positions)?;
    Ok(pooled.cut_if(document.is_cut()))
}

/// Two rows whose groups become one, and how far apart those were.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Merge {
    a: usize,
    b: usize,
    height: f64,
}

/// Ward's method by chains of nearest neighbours: all merges, lowest first.
fn ward(rows: &[&[f32]]) -> Vec<Merge> {
    let n = rows.len();
    let mut distance = distances(rows);
    // The group of a row lives under the number of one of its members; 0 when merged into another.
    let mut size = vec![1.0f64; n];
    let mut merges = Vec::with_capacity(n.saturating_sub(1));
    let mut chain: Vec<usize> = Vec::new();
    while merges.len() + 1 < n {
        if chain.is_empty() {
            chain.extend(size.iter().position(|&size| size > 0.0));
        }
        let Some(&x) = chain.last() else { break };
        // The one before in the chain wins ties, so that the chain ends.
        let before = chain.len().checked_sub(2).map(|place| chain[place]);
        let (mut y, mut least) = match before {
            Some(before) => (before, distance[x * n + before]),
            None => (x, f64::INFINITY),
        };
        for other in (0..n).filter(|&other| other != x && size[other] > 0.0) {
            if distance[x * n + other] < least {
                (y, least) = (other, distance[x * n + other]);
            }
        }
        if before != Some(y) {
            chain.push(y);
            continue;
        }
        chain.truncate(chain.len() - 2);
        let (a, b) = (x.min(y), x.max(y));
        merges.push(Merge {
            a,
            b,
            height: least,
        });
        let (sa, sb) = (size[a], size[b]);
        size[a] = 0.0;
        size[b] = sa + sb;
        for other in (0..n).filter(|&other| size[other] > 0.0 && other != b) {
            let s = size[other];
            let (da, db) = (distance[a * n + other], distance[b * n + other]);
            let sum = (s + sa) * da * da + (s + sb) * db * db - s * least * least;
            let merged = (sum / (s + sa + sb)).max(0.0).sqrt();
            distance[b * n + other] = merged;
            distance[other * n + b] = merged;
        }
    }
    merges.sort_by(|a, b| a.height.total_cmp(&b.height));
    merges
}

/// `1 - cosine` of all pairs, `(n, n)`, rounded like the reference's.
fn distances(rows: &[&[f32]]) -> Vec<f64> {
    let n = rows.len();
    let mut distance = vec![0.0; n * n];
    for a in 0..n {
        for b in a + 1..n {
            let dot: f32 = rows[a].iter().zip(rows[b]).map(|(x, y)| x * y).sum();
            let apart = f64::from(1.0 - dot);
            distance[a * n + b] = apart;
            distance[b * n + a] = apart;
        }
    }
    distance
}

/// The group of every row when merges are made, lowest first, until at most `groups` are left; merges
/// of the same height are made together.
fn cut(merges: &[Merge], n: usize, groups: usize) -> Vec<usize> {
    let needed = n.saturating_sub(groups);
    let highest = needed.checked_sub(1).and_then(|last| merges.get(last));
    let mut parent: Vec<usize> = (0..n).collect();
    if let Some(highest) = highest {
        for merge in merges.iter().filter(|merge| merge.height <= highest.height) {
            let (a, b) = (root(&parent, merge.a), root(&parent, merge.b));
            parent[a.max(b)] = a.min(b);
        }
    }
    (0..n).map(|row| root(&parent, row)).collect()
}

fn root(parent: &[usize], mut row: usize) -> usize {
    while parent[row] != row {
        row = parent[row];
    }
    row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(rows: &[[f32; 2]]) -> TokenVectors {
        let unit = |[x, y]: &[f32; 2]| {
            let length = x.hypot(*y);
            [x / length, y / length]
        };
        let values = rows.iter().flat_map(unit).collect();
        let ids = (10..).take(rows.len()).collect();
        TokenVectors::new(values, 2, ids).unwrap()
    }

    #[test]
    fn neighbours_become_their_mean() {
        let document = document(&[[1., 1.], [1., 0.], [0., 1.], [1., 0.1], [0.1, 1.]]);
        let pooled = pool(&document, 2, 1).unwrap();
        assert_eq!(pooled.rows(), 3);
        assert_eq!(
            (pooled.ids(), pooled.positions()),
            (&[10, 11, 12][..], &[0, 1, 2][..])
        );
        assert_eq!(pooled.row(0), document.row(0));
        let mean = |a: usize, b: usize| -> Vec<f32> {
            let (a, b) = (document.row(a).unwrap(), document.row(b).unwrap());
            a.iter().zip(b).map(|(a, b)| (a + b) / 2.0).collect()
        };
        assert_eq!(pooled.row(1).unwrap(), mean(1, 3));
        assert_eq!(pooled.row(2).unwrap(), mean(2, 4));
    }

    #[test]
    fn small_factors_and_small_documents_stay_as_they_are() {
        let document = document(&[[1., 0.], [0., 1.], [1., 1.]]);
        for factor in [0, 1] {
            assert_eq!(pool(&document, factor, 1).unwrap(), document);
        }
        assert_eq!(pool(&document, 9, 2).unwrap(), document);
        assert_eq!(pool(&document, 9, 7).unwrap(), document);
        assert_eq!(pool(&document, 9, 0).unwrap().rows(), 1);
        let empty = TokenVectors::new(Vec::new(), 2, Vec::new()).unwrap();
        let none = [empty];
        assert_eq!(pool_documents(&none, 2).unwrap(), none);
    }

    #[test]
    fn equal_vectors_are_merged_together() {
        let document = document(&[[1., 0.]; 7]);
        let pooled = pool(&document, 2, 1).unwrap();
        assert_eq!(pooled.rows(), 2);
        assert!((pooled.row(1).unwrap()[0] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn vectors_that_are_no_numbers_are_refused() {
        let document = TokenVectors::new(vec![1., 0., f32::NAN, 1., 0., 1.], 2, vec![1, 2, 3]);
        assert!(pool(&document.unwrap(), 2, 0).is_err());
    }

    /// Ward's method by definition: of all pairs of groups the nearest, again and again.
    fn naive(rows: &[&[f32]]) -> Vec<f64> {
        let n = rows.len();
        let mut distance = distances(rows);
        let mut size = vec![1.0f64; n];
        let mut heights = Vec::new();
        for _ in 1..n {
            let pairs = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b)));
            let alive = pairs.filter(|&(a, b)| size[a] > 0.0 && size[b] > 0.0);
            let nearest =
                alive.min_by(|x, y| distance[x.0 * n + x.1].total_cmp(&distance[y.0 * n + y.1]));
            let (a, b) = nearest.unwrap();
            let least = distance[a * n + b];
            heights.push(least);
            let (sa, sb) = (size[a], size[b]);
            (size[a], size[b]) = (0.0, sa + sb);
            for other in (0..n).filter(|&o| size[o] > 0.0 && o != b) {
                let s = size[other];
                let (da, db) = (distance[a * n + other], distance[b * n + other]);
                let sum = (s + sa) * da * da + (s + sb) * db * db - s * least * least;
                let merged = (sum / (s + sa + sb)).max(0.0).sqrt();
                distance[b * n + other] = merged;
                distance[other * n + b] = merged;
            }
        }
        heights
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn chains_find_the_merges_of_the_definition(rows in prop::collection::vec(prop::array::uniform4(0.1f32..1.0), 2..24)) {
            let unit = |row: &[f32; 4]| {
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.map(|x| x / length)
            };
            let rows: Vec<[f32; 4]> = rows.iter().map(unit).collect();
            let rows: Vec<&[f32]> = rows.iter().map(|row| &row[..]).collect();
            let heights = naive(&rows);
            for (merge, height) in ward(&rows).iter().zip(heights) {
                prop_assert!((merge.height - height).abs() < 1e-6, "{} {height}", merge.height);
            }
        }

        #[test]
        fn there_are_at_most_as_many_groups_as_asked_for(rows in prop::collection::vec(prop::array::uniform4(-1f32..1.0), 1..30), factor in 1usize..6) {
            let ids = (0..).take(rows.len()).collect();
            let document = TokenVectors::new(rows.concat(), 4, ids).unwrap();
            let pooled = pool(&document, factor, 1).unwrap();
            let groups = ((rows.len() - 1) / factor).max(1);
            prop_assert!(pooled.rows() <= 1 + groups.max(1));
            prop_assert!(pooled.rows() >= 1);
        }
    }
}
