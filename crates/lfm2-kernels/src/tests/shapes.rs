//! Wrong shapes are errors, and nothing is written.

use crate::{
    AttentionSpec, ConvKernel, Isa, KvRef, KvShape, MatMut, MatRef, ShapeError, Visibility,
    add_rms_norm, append_kv, attention, matmul, rms_norm, rope, short_conv, silu_mul,
};

#[test]
fn views_check_their_slices() {
    let data = [0.0; 10];
    assert!(MatRef::new(&data, 2, 5).is_ok());
    assert_eq!(
        MatRef::new(&data, 3, 5).unwrap_err(),
        ShapeError::Size {
            what: "values of a matrix",
            expected: 15,
            found: 10
        }
    );
    assert!(MatRef::strided(&data, 2, 3, 7).is_ok());
    assert!(MatRef::strided(&data, 2, 4, 7).is_err());
    assert!(MatRef::strided(&data, 2, 4, 3).is_err());
    assert!(MatRef::strided(&data, 0, 4, 4).is_ok());
    assert!(matches!(
        MatRef::new(&data, usize::MAX, 2).unwrap_err(),
        ShapeError::TooLarge { .. }
    ));
    assert!(MatMut::strided(&mut [0.0; 3], usize::MAX, 1, usize::MAX).is_err());
}

#[test]
fn matmul_checks_all_three_shapes() {
    let data = [0.0; 12];
    let mut out = [7.0; 12];
    for (x, w, y) in [
        ((2, 3), (2, 4), (2, 2)),
        ((2, 3), (4, 3), (2, 3)),
        ((3, 3), (2, 3), (2, 2)),
    ] {
        let result = matmul(
            Isa::best(),
            MatRef::new(&data[..x.0 * x.1], x.0, x.1).unwrap(),
            MatRef::new(&data[..w.0 * w.1], w.0, w.1).unwrap(),
            MatMut::new(&mut out[..y.0 * y.1], y.0, y.1).unwrap(),
        );
        assert!(result.is_err());
    }
    assert_eq!(out, [7.0; 12]);
}

#[test]
fn elementwise_kernels_check_lengths() {
    let isa = Isa::best();
    let mut out = [0.0; 6];
    assert!(silu_mul(isa, &[0.0; 6], &[0.0; 5], &mut out).is_err());
    assert!(silu_mul(isa, &[0.0; 5], &[0.0; 5], &mut out).is_err());
    assert_eq!(
        rms_norm(isa, &[0.0; 6], &[0.0; 4], 1e-5, &mut out),
        Err(ShapeError::NotMultiple {
            what: "rms_norm x",
            divisor: 4,
            found: 6
        })
    );
    assert!(matches!(
        rms_norm(isa, &[], &[], 1e-5, &mut []),
        Err(ShapeError::Zero { .. })
    ));
    assert!(rms_norm(isa, &[0.0; 6], &[0.0; 3], 1e-5, &mut out[..3]).is_err());
    assert!(add_rms_norm(isa, &mut [0.0; 6], &[0.0; 3], &[0.0; 3], 1e-5, &mut out).is_err());
}

#[test]
fn rope_checks_angles() {
    let isa = Isa::best();
    let mut x = [0.0; 16];
    assert!(rope(isa, &mut x, &[0.0; 4], &[0.0; 4], 2, 4).is_ok());
    assert!(rope(isa, &mut x, &[0.0; 6], &[0.0; 6], 2, 4).is_err());
    assert!(rope(isa, &mut x, &[0.0; 4], &[0.0; 3], 2, 4).is_err());
    assert!(rope(isa, &mut x, &[0.0; 3], &[0.0; 3], 2, 4).is_err());
    assert!(rope(isa, &mut x, &[], &[], 2, 4).is_ok());
    assert!(rope(isa, &mut x[..15], &[0.0; 4], &[0.0; 4], 3, 5).is_err());
    assert!(rope(isa, &mut [], &[0.0; 2], &[0.0; 2], 2, 4).is_err());
}

#[test]
fn conv_checks_kernel_and_state() {
    let isa = Isa::best();
    assert!(ConvKernel::new(&[0.0; 6], None, 4).is_err());
    assert!(ConvKernel::new(&[], None, 4).is_err());
    assert!(ConvKernel::new(&[0.0; 6], Some(&[0.0; 3]), 2).is_err());
    let kernel = ConvKernel::new(&[0.0; 6], None, 2).unwrap();
    assert_eq!(
        (kernel.channels(), kernel.taps(), kernel.state_len()),
        (2, 3, 4)
    );
    let mut state = [9.0; 4];
    assert!(short_conv(isa, &[0.0; 6], &kernel, &mut state[..3], &mut [0.0; 2]).is_err());
    assert!(short_conv(isa, &[0.0; 5], &kernel, &mut state, &mut [0.0; 2]).is_err());
    assert!(short_conv(isa, &[0.0; 6], &kernel, &mut state, &mut [0.0; 3]).is_err());
    assert_eq!(state, [9.0; 4]);
}

#[test]
fn attention_checks_heads_and_lengths() {
    let isa = Isa::best();
    let shape = KvShape {
        kv_heads: 2,
        capacity: 3,
        head_dim: 4,
    };
    let cache = [0.0_f32; 24];
    let kv = KvRef::new(&cache, &cache, shape, 3).unwrap();
    assert!(KvRef::new(&cache, &cache[..23], shape, 3).is_err());
    assert_eq!(
        KvRef::new(&cache, &cache, shape, 4).unwrap_err(),
        ShapeError::TooLarge {
            what: "kv length",
            limit: 3,
            found: 4
        }
    );
    assert!(
        KvShape {
            kv_heads: 0,
            ..shape
        }
        .size()
        .is_err()
    );
    let spec = |heads| AttentionSpec {
        heads,
        scale: 1.0,
        past: 0,
        visibility: Visibility::All,
    };
    let mut out = [0.0; 16];
    assert!(attention(isa, &[0.0; 16], kv, &spec(4), &mut out).is_ok());
    assert!(attention(isa, &[0.0; 12], kv, &spec(3), &mut out[..12]).is_err());
    assert!(attention(isa, &[0.0; 15], kv, &spec(4), &mut out[..15]).is_err());
    assert!(attention(isa, &[0.0; 16], kv, &spec(4), &mut out[..12]).is_err());
    assert!(attention(isa, &[], kv, &spec(4), &mut []).is_ok());
    assert!(attention(isa, &[], kv, &spec(0), &mut []).is_err());
}

#[test]
fn appending_checks_room() {
    let shape = KvShape {
        kv_heads: 2,
        capacity: 3,
        head_dim: 4,
    };
    let mut cache = [9.0_f32; 24];
    assert_eq!(
        append_kv(&[0.0; 16], shape, 2, &mut cache),
        Err(ShapeError::TooLarge {
            what: "new positions",
            limit: 1,
            found: 2
        })
    );
    assert!(append_kv(&[0.0; 8], shape, usize::MAX, &mut cache).is_err());
    assert!(append_kv(&[0.0; 7], shape, 0, &mut cache).is_err());
    assert!(append_kv(&[0.0; 8], shape, 0, &mut cache[..20]).is_err());
    assert!(append_kv::<f32>(&[], shape, 3, &mut cache).is_ok());
    assert_eq!(cache, [9.0; 24]);
}
