//! What no parser is needed for: the majority class, a bag of symbols, and trees that branch one way.
use crate::args::{Args, Config};
use crate::trees::Agreement;
use tch::{Kind, Reduction, Tensor};
use thruway::data::listops::{Example, Units, shorter_than};
use thruway::data::{Fetch, ListOps};
use thruway::error::Result;
use thruway::nn::{Linear, Params};
use thruway::optim::{Adam, Method, Settings};
use thruway::run::seeding;

const EPOCHS: i64 = 20;
const BATCH: i64 = 64;

/// Prints them for validation and test file.
pub fn run(args: &Args) -> Result<()> {
    let device = args.run.prepare()?;
    let data = ListOps::load(Fetch::Allowed, args.generated, args.train_seed, args.train_size)?;
    let (config, _) = Config::new(args, &data)?;
    let [train, valid, test] = [&data.train, &data.valid, &data.test].map(|set| shorter_than(set, args.max_length));
    println!(
        "{}: {} training expressions ({:?}, seed {}), {} valid, {} test, below {} symbols",
        config.dataset,
        train.len(),
        config.train_split,
        config.train_seed,
        valid.len(),
        test.len(),
        args.max_length
    );
    let mut counts = [0usize; 10];
    train.iter().for_each(|e| counts[usize::from(e.label)] += 1);
    let major = (0..10).max_by_key(|&i| counts[i]).unwrap_or(0) as u8;
    let share = |set: &[Example]| 100.0 * set.iter().filter(|e| e.label == major).count() as f64 / set.len() as f64;
    println!("majority class ({major}): valid {:.2} %, test {:.2} %", share(&valid), share(&test));

    // counts of the sixteen symbols -> 300 ReLU -> 10, as wide as the model's own classifier
    let mut params = Params::default();
    let layers = [
        Linear::new(&mut params, "hidden", Units::Tokens.vocabulary(), 300, device)?,
        Linear::new(&mut params, "output", 300, 10, device)?,
    ];
    let forward = |x: &Tensor| layers[1].forward(&layers[0].forward(x)?.f_relu()?);
    let mut optimizer = Adam::new(Method::Adam, Settings { lr: 1e-3, ..Settings::default() }, params.iter())?;
    let (x, y) = bag(&train)?;
    let n = x.size()[0];
    for _ in 0..EPOCHS {
        let order = seeding::shuffle(n)?;
        for from in (0..n).step_by(BATCH as usize) {
            let rows = order.f_narrow(0, from, BATCH.min(n - from))?;
            let loss = forward(&x.f_index_select(0, &rows)?)?.f_cross_entropy_loss(
                &y.f_index_select(0, &rows)?,
                None::<Tensor>,
                Reduction::Mean,
                -100,
                0.0,
            )?;
            optimizer.zero_grad();
            loss.f_backward()?;
            optimizer.step()?;
        }
    }
    let accuracy = |set: &[Example]| -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let (x, y) = bag(set)?;
        let right = forward(&x)?.f_argmax(-1, false)?.f_eq_tensor(&y)?.f_sum(Kind::Int64)?;
        Ok(100.0 * right.f_int64_value(&[])? as f64 / set.len() as f64)
    };
    println!(
        "bag of symbols (counts, 300 ReLU, {EPOCHS} epochs of Adam 0.001): valid {:.2} %, test {:.2} %",
        accuracy(&valid)?,
        accuracy(&test)?
    );
    for (name, left) in [("left-branching", true), ("right-branching", false)] {
        let mut agreement = Agreement::default();
        for e in &valid {
            let n = config.units.encode(&e.expression).len();
            let merges: Vec<usize> = (1..n).rev().map(|pairs| if left { 0 } else { pairs - 1 }).collect();
            agreement.add(e, config.units, &merges);
        }
        println!(
            "{name} trees ({:?}): F1 {:.2} %, operations {:.2} % (valid)",
            config.units,
            agreement.f1(),
            agreement.operations()
        );
    }
    Ok(())
}

/// How often each symbol occurs, and the label.
fn bag(set: &[Example]) -> Result<(Tensor, Tensor)> {
    let width = Units::Tokens.vocabulary() as usize;
    let mut counts = vec![0f32; set.len() * width];
    for (row, e) in counts.chunks_exact_mut(width).zip(set) {
        e.expression.symbols().iter().for_each(|&s| row[usize::from(s)] += 1.0);
    }
    let labels: Vec<i64> = set.iter().map(|e| i64::from(e.label)).collect();
    Ok((Tensor::f_from_slice(&counts)?.f_view([set.len() as i64, width as i64])?, Tensor::f_from_slice(&labels)?))
}
