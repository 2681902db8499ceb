//! Models whose packed weights come from an earlier start.

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::QTensor;
use lfm2_hub::gguf::Quantization;
use lfm2_hub::{
    Checkpoint, Fingerprint, InBlocks, ModelSource, OpenOptions, PackedCache, PackedTensor,
    TensorInfo, TensorSource,
};
use lfm2_nn::{DType, Device, LoadEvent, LoadProgress, Tensor};
use lfm2_text::{LoadOptions, TextConfig, TextModel};
use support::logits;

/// Counts how often blocks are asked for, which they are for packing alone.
struct Counting {
    source: Arc<dyn TensorSource>,
    packed: AtomicUsize,
    /// A tensor that cannot be read.
    broken: &'static str,
}

impl TensorSource for Counting {
    fn names(&self) -> Vec<String> {
        self.source.names()
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.source.info(name)
    }

    fn dense(&self, name: &str, dtype: DType, device: &Device) -> lfm2_hub::Result<Tensor> {
        if name == self.broken {
            return Err(lfm2_hub::Error::InvalidInput("broken".to_owned()));
        }
        self.source.dense(name, dtype, device)
    }

    fn quantized(&self, name: &str, device: &Device) -> lfm2_hub::Result<Option<Arc<QTensor>>> {
        self.source.quantized(name, device)
    }

    fn blocks(&self, name: &str) -> lfm2_hub::Result<Option<std::borrow::Cow<'_, [u8]>>> {
        self.packed.fetch_add(1, Ordering::Relaxed);
        self.source.blocks(name)
    }

    fn fingerprint(&self) -> lfm2_hub::Result<Option<Fingerprint>> {
        self.source.fingerprint()
    }
}

/// A model file of its own beside an empty cache.
struct Fixture {
    folder: tempfile::TempDir,
}

/// What a start gave: the logits of some ids, and how many tensors were packed.
#[derive(Debug, PartialEq)]
struct Start {
    logits: Vec<f32>,
    packed: usize,
}

impl Start {
    fn of((model, packed): (TextModel, usize)) -> Result<Self> {
        let logits = logits(&model, &[1, 5, 9, 2, 7])?.flatten_all()?.to_vec1()?;
        Ok(Self { logits, packed })
    }
}

fn open(path: PathBuf) -> Result<Checkpoint> {
    let source = ModelSource::from_path(path);
    Ok(Checkpoint::open(&source, &OpenOptions::default())?)
}

/// The model of `source`, and how many tensors were packed for it.
fn load(
    checkpoint: &Checkpoint,
    source: Arc<dyn TensorSource>,
    broken: &'static str,
    options: &LoadOptions,
) -> Result<(TextModel, usize)> {
    let tensors = Arc::new(Counting {
        source,
        packed: AtomicUsize::new(0),
        broken,
    });
    let config = TextConfig::from_json(checkpoint.config())?;
    let model = TextModel::from_tensors(config, tensors.clone(), options)?;
    Ok((model, tensors.packed.load(Ordering::Relaxed)))
}

impl Fixture {
    fn new(golden: &str) -> Result<Self> {
        let fixture = Self {
            folder: tempfile::tempdir()?,
        };
        std::fs::copy(golden_file(golden), fixture.model())?;
        Ok(fixture)
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("model.gguf")
    }

    fn cache(&self) -> PackedCache {
        PackedCache::new(self.folder.path().join("packed"))
            .with_min_bytes(0)
            .with_tick(Duration::ZERO)
    }

    fn options(&self) -> LoadOptions {
        LoadOptions::default().with_packed_cache(self.cache())
    }

    /// The model, and how many tensors were packed for it.
    fn load(&self, options: &LoadOptions) -> Result<(TextModel, usize)> {
        self.load_without("", options)
    }

    fn load_without(
        &self,
        broken: &'static str,
        options: &LoadOptions,
    ) -> Result<(TextModel, usize)> {
        let checkpoint = open(self.model())?;
        load(&checkpoint, checkpoint.tensors(), broken, options)
    }

    fn start(&self, options: &LoadOptions) -> Result<Start> {
        Start::of(self.load(options)?)
    }

    /// The one file in the cache.
    fn file(&self) -> Result<PathBuf> {
        let mut files = std::fs::read_dir(self.cache().folder())?;
        let file = files.next().context("the cache is empty")??.path();
        ensure!(files.next().is_none(), "more than one file");
        Ok(file)
    }
}

fn golden_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

const DENSE: &str = "dense_small/model-q4_0.gguf";
const EXPERTS: &str = "moe_small/model-q8_0.gguf";

#[test]
fn the_second_start_packs_nothing_and_gives_the_same_bits() -> Result<()> {
    for golden in [DENSE, EXPERTS] {
        let fixture = Fixture::new(golden)?;
        let without = fixture.start(&LoadOptions::default())?;
        assert!(without.packed > 0, "{golden}");
        let first = fixture.start(&fixture.options())?;
        assert_eq!(first, without, "{golden}");
        let second = fixture.start(&fixture.options())?;
        assert_eq!(second.packed, 0, "{golden}");
        assert_eq!(second.logits, first.logits, "{golden}");
    }
    Ok(())
}

#[test]
fn weights_that_are_quantised_while_they_are_read_are_kept_too() -> Result<()> {
    let fixture = Fixture::new(DENSE)?;
    let folder = fixture.folder.path().join("dense");
    std::fs::create_dir(&folder)?;
    for name in ["config.json", "model.safetensors"] {
        let from = golden_file("dense_small").join(name);
        std::fs::copy(from, folder.join(name))?;
    }
    let start = |kind| {
        let checkpoint = open(folder.clone())?;
        let blocks = Arc::new(InBlocks::new(checkpoint.tensors(), kind));
        Start::of(load(&checkpoint, blocks, "", &fixture.options())?)
    };
    for kind in [Quantization::Q8_0, Quantization::Q4_0] {
        let (first, second) = (start(kind)?, start(kind)?);
        assert!(first.packed > 0, "{kind}");
        assert_eq!((second.packed, second.logits), (0, first.logits), "{kind}");
    }
    Ok(())
}

#[test]
fn without_a_cache_nothing_is_written() -> Result<()> {
    let fixture = Fixture::new(DENSE)?;
    fixture.start(&LoadOptions::default())?;
    assert!(!fixture.cache().folder().exists());
    // Nor where the kernels do not take part.
    let (_, packed) = fixture.load(&fixture.options().with_dtype(DType::F64))?;
    assert_eq!(packed, 0);
    assert!(!fixture.cache().folder().exists());
    Ok(())
}

#[test]
fn a_start_that_fails_stores_nothing() -> Result<()> {
    let fixture = Fixture::new(DENSE)?;
    let last = "model.embedding_norm.weight";
    let error = fixture.load_without(last, &fixture.options()).unwrap_err();
    assert_eq!(error.to_string(), "broken");
    assert_eq!(std::fs::read_dir(fixture.cache().folder())?.count(), 0);
    // One that fails later leaves what an earlier one has stored.
    let first = fixture.start(&fixture.options())?;
    assert!(fixture.load_without(last, &fixture.options()).is_err());
    let second = fixture.start(&fixture.options())?;
    assert_eq!((second.packed, second.logits), (0, first.logits));
    Ok(())
}

#[test]
fn damaged_files_are_made_anew() -> Result<()> {
    let fixture = Fixture::new(DENSE)?;
    let first = fixture.start(&fixture.options())?;
    let path = fixture.file()?;
    let whole = std::fs::read(&path)?;
    let flipped = |place: usize| {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        bytes
    };
    let damages = [
        Vec::new(),
        b"not a file of packed weights".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        flipped(8),
        flipped(whole.len() - 10),
        // In a matrix: the others are taken, and the file is written again all the same.
        flipped(5000),
    ];
    for (index, damaged) in damages.iter().enumerate() {
        std::fs::write(&path, damaged)?;
        let start = fixture.start(&fixture.options())?;
        assert_eq!(start.logits, first.logits, "damage {index}");
        assert!(start.packed > 0, "damage {index}");
        assert_eq!(std::fs::read(fixture.file()?)?, whole, "damage {index}");
    }
    Ok(())
}

#[test]
fn matrices_of_another_shape_or_format_are_packed_again() -> Result<()> {
    let fixture = Fixture::new(DENSE)?;
    let first = fixture.start(&fixture.options())?;
    let bytes = std::fs::read(fixture.file()?)?;
    let at = u64::from_le_bytes(bytes[16..24].try_into()?) as usize;
    let head: serde_json::Value = serde_json::from_slice(&bytes[at..])?;
    let layout = u32::try_from(head["origin"]["layout"].as_u64().context("no layout")?)?;
    let found = &head["matrices"][0];
    let name = found["name"].as_str().context("no name")?;
    ensure!(found["format"] == "q4_0" || found["format"] == "q8_0");
    let format = if found["format"] == "q4_0" {
        "q4_0"
    } else {
        "q8_0"
    };
    let length = found["length"].as_u64().context("no length")?;
    let side = |i: usize| found["shape"][i].as_u64().map_or(0, |n| n as usize);
    let right = [side(0), side(1), side(2)];
    let wrong = [
        (format, [right[0] * 2, right[1], right[2]], length),
        ("q9_9", right, length),
        (format, right, length - 1),
    ];
    let checkpoint =
        Checkpoint::open(&ModelSource::Gguf(fixture.model()), &OpenOptions::default())?;
    let source = checkpoint.tensors().fingerprint()?.context("a file")?;
    for (format, shape, length) in wrong {
        let tensor = PackedTensor {
            name: name.to_owned(),
            format,
            shape: shape.to_vec(),
            bytes: vec![0x55; length as usize],
        };
        let cache = fixture.cache();
        cache.store(&source, layout, length, [Ok(tensor)])?;
        let start = fixture.start(&fixture.options())?;
        assert_eq!(start, first, "{format} {shape:?}");
        assert_eq!(fixture.start(&fixture.options())?.packed, 0);
    }
    Ok(())
}

#[test]
fn another_model_under_the_same_name_gets_its_own_weights() -> Result<()> {
    let fixture = Fixture::new(DENSE)?;
    let first = fixture.start(&fixture.options())?;
    // Scales and levels of the last matrix, in a file of the same size.
    let mut other = std::fs::read(fixture.model())?;
    let end = other.len();
    for byte in other[end - 18 * 200..].iter_mut().skip(2).step_by(18) {
        *byte ^= 0x77;
    }
    for replace in [true, false] {
        if replace {
            let beside = fixture.folder.path().join("beside");
            std::fs::write(&beside, &other)?;
            std::fs::rename(&beside, fixture.model())?;
        } else {
            std::fs::copy(golden_file(DENSE), fixture.model())?;
        }
        let found = fixture.start(&fixture.options())?;
        assert_eq!(found, fixture.start(&LoadOptions::default())?);
        assert_eq!(found.logits != first.logits, replace);
    }
    Ok(())
}

#[test]
fn models_that_start_at_the_same_time_do_not_disturb_each_other() -> Result<()> {
    let fixture = Fixture::new(DENSE)?;
    let expected = fixture.start(&LoadOptions::default())?.logits;
    std::thread::scope(|scope| -> Result<()> {
        let start = || (0..4).map(|_| fixture.start(&fixture.options())).collect();
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        for handle in starts {
            let found: Result<Vec<Start>> = handle.join().unwrap();
            assert!(found?.iter().all(|start| start.logits == expected));
        }
        Ok(())
    })?;
    assert_eq!(fixture.start(&fixture.options())?.packed, 0);
    fixture.file()?;
    Ok(())
}

#[test]
fn a_cache_that_cannot_be_written_to_is_no_error() -> Result<()> {
    let fixture = Fixture::new(DENSE)?;
    let first = fixture.start(&LoadOptions::default())?;
    let file = fixture.folder.path().join("file");
    std::fs::write(&file, "x")?;
    let cache = PackedCache::new(file)
        .with_min_bytes(0)
        .with_tick(Duration::ZERO);
    let options = LoadOptions::default().with_packed_cache(cache);
    for _ in 0..2 {
        assert_eq!(fixture.start(&options)?, first);
    }
    Ok(())
}

#[test]
fn progress_reaches_the_end_in_order() -> Result<()> {
    let fixture = Fixture::new(DENSE)?;
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let progress = LoadProgress::new(move |event| {
        if let Ok(mut events) = seen.lock() {
            events.push(event);
        }
    });
    let options = fixture.options().with_progress(progress);
    fixture.start(&options)?;
    let first = std::mem::take(&mut *events.lock().unwrap());
    let share = |event: &LoadEvent| match *event {
        LoadEvent::Weights { done, total } => (0, done, total),
        LoadEvent::Storing { done, total } => (1, done, total),
        _ => (2, 0, 0),
    };
    let shares: Vec<_> = first.iter().map(share).collect();
    assert!(shares.is_sorted(), "{shares:?}");
    for stage in 0..2 {
        let last = shares.iter().rfind(|s| s.0 == stage).copied();
        let (_, done, total) = last.context("a stage without events")?;
        assert!(
            done == total && total > 0,
            "stage {stage}: {done} of {total}"
        );
    }
    assert_eq!(first.last(), Some(&LoadEvent::Finished));
    fixture.start(&options)?;
    let second = std::mem::take(&mut *events.lock().unwrap());
    assert!(second.iter().all(|event| share(event).0 != 1));
    Ok(())
}
