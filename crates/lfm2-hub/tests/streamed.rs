//! Tensors written piece by piece, and read in parts.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use lfm2_hub::{
    Limits, Mapping, Overwrite, SafetensorsSource, TensorPlan, TensorSource, write_safetensors,
    write_safetensors_streamed,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn tensors() -> candle_core::Result<Vec<(&'static str, Tensor)>> {
    let numbers = |n: u32| Tensor::arange(0u32, n, &Device::Cpu);
    Ok(vec![
        ("wide", numbers(12)?.to_dtype(DType::F32)?.reshape((3, 4))?),
        (
            "half",
            (numbers(10)?.to_dtype(DType::F32)? * 0.5)?.to_dtype(DType::BF16)?,
        ),
        ("ids", (numbers(6)? + 7.0)?.reshape((2, 3))?),
    ])
}

fn plans(tensors: &[(&str, Tensor)]) -> Vec<TensorPlan> {
    let plan = |(name, tensor): &(&str, Tensor)| TensorPlan {
        name: (*name).to_string(),
        dtype: tensor.dtype(),
        shape: tensor.dims().to_vec(),
    };
    tensors.iter().map(plan).collect()
}

#[test]
fn pieces_give_the_bytes_of_whole_tensors() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (whole, pieces) = (folder.path().join("whole"), folder.path().join("pieces"));
    let (all, metadata) = (tensors()?, BTreeMap::from([("a".into(), "b".into())]));
    let named = all.iter().map(|(name, tensor)| (*name, tensor));
    write_safetensors(&whole, named, &metadata, Overwrite::Refuse)?;
    let refuse = Overwrite::Refuse;
    write_safetensors_streamed(&pieces, plans(&all), &metadata, refuse, |plan, sink| {
        let found = all.iter().find(|(name, _)| *name == plan.name);
        let flat = found.map(|(_, tensor)| tensor.flatten_all()).transpose()?;
        let Some(flat) = flat else { return Ok(()) };
        for start in (0..flat.elem_count()).step_by(5) {
            sink(&flat.narrow(0, start, 5.min(flat.elem_count() - start))?)?;
        }
        Ok(())
    })?;
    assert_eq!(std::fs::read(whole)?, std::fs::read(pieces)?);
    Ok(())
}

#[test]
fn pieces_that_do_not_fit_their_plan_leave_no_file() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("file");
    let all = tensors()?;
    let write = |piece: &Tensor, times: usize| {
        let (plans, metadata) = (plans(&all[..1]), BTreeMap::new());
        let result =
            write_safetensors_streamed(&path, plans, &metadata, Overwrite::Refuse, |_, sink| {
                (0..times).try_for_each(|_| sink(piece))
            });
        result
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert!(write(&all[0].1, 2).contains("found 24 elements"));
    assert!(write(&all[0].1, 0).contains("found 0 elements"));
    assert!(write(&all[1].1, 1).contains("found bf16"));
    assert!(!path.exists());
    assert_eq!(write(&all[0].1, 1), "");
    assert!(path.exists());
    Ok(())
}

#[test]
fn parts_of_tensors_are_read_without_the_rest() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("file");
    let all = tensors()?;
    let named = all.iter().map(|(name, tensor)| (*name, tensor));
    write_safetensors(&path, named, &BTreeMap::new(), Overwrite::Refuse)?;
    for mapping in [Mapping::Map, Mapping::Read] {
        let source = SafetensorsSource::open(&path, mapping, &Limits::default())?;
        assert_eq!(source.elements("wide", 5..8)?, [5.0, 6.0, 7.0]);
        assert_eq!(source.elements("half", 9..10)?, [4.5]);
        assert_eq!(source.elements("wide", 4..4)?, [0f32; 0]);
        assert_eq!(source.integers("ids", 2..4)?, [9, 10]);
        assert_eq!(source.shape("ids"), Some(&[2, 3][..]));
        assert_eq!(source.shape("no"), None);
        let message = |result: lfm2_hub::Result<()>| result.err().map(|e| e.to_string());
        let outside = message(source.elements("wide", 10..13).map(drop));
        assert!(outside.is_some_and(|m| m.contains("has 12 elements")));
        let backwards = std::ops::Range { start: 3, end: 1 };
        assert!(source.integers("ids", backwards).is_err());
        assert!(source.integers("wide", 0..1).is_err() && source.elements("ids", 0..1).is_err());
    }
    Ok(())
}
