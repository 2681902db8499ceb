//! Routing with a bias, the bias itself, and the losses for comparison.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use lfm2_nn::{MoeConfig, MoeFeedForward, Weights, expert_load};
use lfm2_text::{TensorRole, TensorSpec};
use lfm2_train::loss::{router_z_loss, switch_loss};
use lfm2_train::{Balance, Parameters, overload};

use super::{Golden, PRECISIONS, close, flat, for_every, number, numbers, scalar};

/// A mixture whose router passes its input through, so that logits can be given.
fn mixture(experts: usize, per_token: usize, bias: &[f32]) -> Result<MoeFeedForward> {
    let spec = |name: String, shape: &[usize], role| TensorSpec {
        name,
        shape: shape.to_vec(),
        role,
    };
    let mut identity = vec![0.0; experts * experts];
    (0..experts).for_each(|e| identity[e * experts + e] = 1.0);
    let router = spec(
        "gate.weight".into(),
        &[experts, experts],
        TensorRole::Router,
    );
    let bias_spec = spec("expert_bias".into(), &[experts], TensorRole::ExpertBias);
    let mut values = vec![(router, identity), (bias_spec, bias.to_vec())];
    for e in 0..experts {
        for (part, shape) in [
            ("w1", [1, experts]),
            ("w2", [experts, 1]),
            ("w3", [1, experts]),
        ] {
            let name = format!("experts.{e}.{part}.weight");
            values.push((spec(name, &shape, TensorRole::Expert), vec![0.0; experts]));
        }
    }
    let config = MoeConfig {
        hidden: experts,
        width: 1,
        experts,
        per_token,
        expert_bias: true,
        norm_topk_prob: true,
        routed_scaling_factor: 1.0,
    };
    let source = Arc::new(Parameters::from_values(values)?);
    let weights = Weights::new(source, DType::F32, &Device::Cpu);
    Ok(MoeFeedForward::load(config, &weights)?)
}

fn bias_of(golden: &Golden, key: &str) -> Result<Vec<f32>> {
    let values = golden.values(key)?.into_iter();
    Ok(values.map(|b| b as f32).collect())
}

#[test]
fn steps_of_routing_and_balance() -> Result<()> {
    for_every("moe_balance", |golden| {
        let experts = number(&golden.json, "experts")? as usize;
        let per_token = number(&golden.json, "k")? as usize;
        let balance = Balance::new(number(&golden.json, "update")?);
        for case in golden.cases()? {
            let prefix = case["prefix"].as_str().context("a prefix")?;
            for step in 0.. {
                let key = |name: &str| format!("{prefix}{step}.{name}");
                let Ok(logits) = golden.tensor(&key("logits")) else {
                    ensure!(step > 0, "no step of {prefix}");
                    break;
                };
                let mut bias = bias_of(golden, &key("bias"))?;
                let mixture = mixture(experts, per_token, &bias)?;
                let routing = mixture.route(&logits.to_dtype(DType::F32)?)?;
                let chosen: Vec<f64> = routing
                    .experts
                    .iter()
                    .flatten()
                    .map(|&e| e.into())
                    .collect();
                close(
                    &chosen,
                    &golden.values(&key("selected"))?,
                    0.0,
                    &key("selected"),
                )?;
                let weights = flat(&routing.weights)?;
                close(
                    &weights,
                    &golden.values(&key("weights"))?,
                    1e-6,
                    &key("weights"),
                )?;
                let load = expert_load(&routing, experts);
                let load: Vec<u64> = load.into_iter().map(|n| n as u64).collect();
                let found: Vec<f64> = load.iter().map(|&n| n as f64).collect();
                close(&found, &golden.values(&key("load"))?, 0.0, &key("load"))?;
                balance.adjust(&mut bias, &load)?;
                let next = format!("{prefix}{}.bias", step + 1);
                if let Ok(expected) = golden.values(&next) {
                    let found: Vec<f64> = bias.iter().map(|&b| f64::from(b)).collect();
                    close(&found, &expected, 1e-6, &next)?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn the_bias_after_all_loads() -> Result<()> {
    for_every("moe_balance", |golden| {
        let balance = Balance::new(number(&golden.json, "update")?);
        let loads = golden.json["loads_by_step"].as_array().context("loads")?;
        let expected = numbers(&golden.json["load_violation_by_step"]);
        let last = golden.values("final_bias")?;
        let mut bias = vec![0.0; last.len()];
        for (load, expected) in loads.iter().zip(expected) {
            let load: Vec<u64> = numbers(load).into_iter().map(|n| n as u64).collect();
            close(&[overload(&load)], &[expected], 1e-12, "load violation")?;
            balance.adjust(&mut bias, &load)?;
        }
        let found: Vec<f64> = bias.into_iter().map(f64::from).collect();
        close(&found, &last, 1e-6, "final_bias")
    })
}

#[test]
fn balancing_losses_and_their_gradients() -> Result<()> {
    for_every("moe_balance", |golden| {
        let per_token = number(&golden.json, "k")? as usize;
        let logits = golden.tensor("aux.logits")?;
        for (dtype, of_loss, of_gradient) in PRECISIONS {
            let var = Var::from_tensor(&logits.to_dtype(dtype)?)?;
            let losses: [(&str, Tensor, &str); 2] = [
                ("aux_loss", switch_loss(&var, per_token)?, "aux.grad"),
                ("z_loss", router_z_loss(&var)?, "z.grad"),
            ];
            for (key, loss, gradient) in losses {
                close(
                    &[scalar(&loss)?],
                    &[number(&golden.json, key)?],
                    of_loss,
                    key,
                )?;
                let grads = loss.backward()?;
                let found = flat(grads.get(&var).context("a gradient")?)?;
                close(&found, &golden.values(gradient)?, of_gradient, gradient)?;
            }
        }
        Ok(())
    })
}
