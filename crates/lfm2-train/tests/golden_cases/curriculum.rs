//! Difficulty, order and stages.

use anyhow::{Context, Result, ensure};
use candle_core::DType;
use lfm2_train::Rng;
use lfm2_train::curriculum::{Curriculum, Unsolved, difficulty, easy_first, stages};

use super::{close, for_every, number, numbers};

#[test]
fn difficulty_order_and_stages() -> Result<()> {
    for_every("curriculum", |golden| {
        let success = golden
            .tensor("success")?
            .to_dtype(DType::I64)?
            .to_vec2::<i64>()?;
        let success: Vec<Vec<bool>> = success
            .iter()
            .map(|row| row.iter().map(|&solved| solved != 0).collect())
            .collect();
        let hard = difficulty(&success)?;
        close(&hard, &golden.values("difficulty")?, 1e-12, "difficulty")?;
        let order = easy_first(&hard);
        let found: Vec<f64> = order.iter().map(|&i| i as f64).collect();
        close(&found, &golden.values("order")?, 0.0, "order")?;
        for case in golden.cases()? {
            let sizes = numbers(&case["stage_sizes"]);
            let parts = stages(&order, sizes.len());
            let found: Vec<f64> = parts.iter().map(|part| part.len() as f64).collect();
            close(&found, &sizes, 0.0, "stage_sizes")?;
            let mean =
                |part: &Vec<usize>| part.iter().map(|&i| hard[i]).sum::<f64>() / part.len() as f64;
            let means: Vec<f64> = parts.iter().map(mean).collect();
            let expected = numbers(&case["stage_mean_difficulty"]);
            close(&means, &expected, 1e-12, "stage_mean_difficulty")?;
            let unsolved = hard.iter().filter(|&&d| d == 1.0).count();
            ensure!(unsolved as f64 == number(case, "unsolved")?);
            let mut rng = Rng::new(1);
            let kept = Curriculum::Strict.epoch(&hard, Unsolved::Drop, 0.0, &mut rng);
            ensure!(kept == order[..hard.len() - unsolved]);
        }
        golden.json["cases"].as_array().context("cases").map(drop)
    })
}
