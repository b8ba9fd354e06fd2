//! The tree-LSTM: the incremental kernel against the published layout under autograd, ragged batches, trees, the leaf LSTM.
mod common;
use common::{distance, largest, normals};
use tch::{Device, Kind, Tensor};
use thruway::data::listops::{Batch, Example, Units, generate};
use thruway::estimators::{Estimator, Knobs, Takes};
use thruway::kernels::tree::{self, Composed, Weights};
use thruway::nn::tree_lstm::{Choice, Leaf, Sizes, TreeLstm, by_ops, leaves};
use thruway::noise::{HostNoise, Noise, Tape, TorchNoise};
use thruway::{Error, Result};

const H: i64 = 5;

fn parameter(size: &[i64], seed: u64) -> Tensor {
    (normals(size, Kind::Double, seed) * 0.6).detach().set_requires_grad(true)
}

/// Leaves h and c `[T, B, H]`, weight, bias, query.
struct Problem {
    lengths: Vec<usize>,
    inputs: [Tensor; 5],
}

impl Problem {
    fn new(lengths: &[usize]) -> Self {
        let size = [*lengths.iter().max().unwrap() as i64, lengths.len() as i64, H];
        let inputs = [
            parameter(&size, 1),
            parameter(&size, 2),
            parameter(&[5 * H, 2 * H], 3),
            parameter(&[5 * H], 4),
            (parameter(&[H], 5) * 3.0).detach().set_requires_grad(true),
        ];
        Problem { lengths: lengths.to_vec(), inputs }
    }

    fn weights(&self) -> Weights<'_> {
        Weights { weight: &self.inputs[2], bias: &self.inputs[3], query: &self.inputs[4] }
    }

    /// Gradients of a scalar of the roots that is not linear in them.
    fn gradients(&self, root: &Tensor) -> Vec<Tensor> {
        let loss = (root * normals(&root.size(), Kind::Double, 6)).sin().sum(Kind::Double);
        Tensor::f_run_backward(&[loss], &self.inputs.iter().collect::<Vec<_>>(), false, false).unwrap()
    }
}

/// A merge for each step of each sentence, at random.
fn merges(lengths: &[usize], seed: u64) -> Vec<Vec<usize>> {
    let mut noise = HostNoise::new(seed);
    let mut below = |n: usize| {
        let u = noise.uniform(&[1], Kind::Double, Device::Cpu).unwrap().double_value(&[0]);
        (u * n as f64) as usize
    };
    lengths.iter().map(|&l| (1..l).rev().map(&mut below).collect()).collect()
}

/// The draws of all levels as a tape: of the sentences that have a choice, or of all while there are three nodes anywhere.
fn tape(merges: &[Vec<usize>], lengths: &[usize], all: bool) -> Tape {
    let longest = *lengths.iter().max().unwrap();
    let levels = (0..longest.saturating_sub(2)).map(|level| {
        let of = |(m, &l): (&Vec<usize>, &usize)| match l.saturating_sub(level) {
            3.. => Some(m[level] as i64),
            _ => all.then_some(0),
        };
        let index: Vec<i64> = merges.iter().zip(lengths).filter_map(of).collect();
        ("index", Tensor::from_slice(&index))
    });
    Tape::new(levels.collect::<Vec<_>>())
}

fn by_kernel(p: &Problem, choice: &mut Choice) -> Result<Composed> {
    // through a model's own dispatch only parameters in float pass; here the kernel itself in double
    let [h, c, ..] = &p.inputs;
    match choice {
        Choice::Greedy => tree::compose(h, c, &p.lengths, &p.weights(), false, &mut |s, m| Choice::Greedy.pick(s, m)),
        Choice::Drawn(e, n) => {
            tree::compose(h, c, &p.lengths, &p.weights(), true, &mut |s, m| Choice::Drawn(*e, &mut **n).pick(s, m))
        }
    }
}

/// For every estimator whose gradient is a function of the draw: the same merges give the published layout's roots and
/// gradients. Rounding alone: 1e-11 of the largest entry.
#[test]
fn the_kernel_has_the_published_values_and_gradients() {
    for (name, seed) in [("st", 0), ("gst", 1), ("gst-p", 2), ("reinmax", 3), ("reinmax-baseline", 4)] {
        let estimator = Estimator::by_name(name).unwrap();
        let tau = estimator.claims().knobs.contains(&"tau").then(|| "1.3".parse().unwrap());
        let estimator = estimator.build(&Knobs { tau, ..Knobs::default() }).unwrap().drop_in().unwrap();
        let p = Problem::new(&[9, 6, 3, 2, 1, 9]);
        let chosen = merges(&p.lengths, seed);
        let mut noise = tape(&chosen, &p.lengths, false);
        let ours = by_kernel(&p, &mut Choice::Drawn(&*estimator, &mut noise)).unwrap();
        noise.finish().unwrap();
        let mut noise = tape(&chosen, &p.lengths, true);
        let [h, c, ..] = &p.inputs;
        let choice = &mut Choice::Drawn(&*estimator, &mut noise);
        let theirs = by_ops::compose(h, c, &p.lengths, &p.weights(), choice).unwrap();
        noise.finish().unwrap();
        assert_eq!((&ours.merges, &theirs.merges), (&chosen, &chosen), "{name}");
        assert!(distance(&ours.root, &theirs.root) < 1e-12, "{name}");
        for ((a, b), what) in
            p.gradients(&ours.root).iter().zip(p.gradients(&theirs.root)).zip(["h", "c", "weight", "bias", "query"])
        {
            assert!(largest(&b) > 1e-4, "{name}: nothing reaches {what}");
            assert!(distance(a, &b) < 1e-11 * largest(&b).max(1.0), "{name}: {what} by {}", distance(a, &b));
        }
    }
}

#[test]
fn the_greedy_parse_is_the_published_one() {
    let p = Problem::new(&[8, 5, 1, 2]);
    let [h, c, ..] = &p.inputs;
    let ours = by_kernel(&p, &mut Choice::Greedy).unwrap();
    let theirs = by_ops::compose(h, c, &p.lengths, &p.weights(), &mut Choice::Greedy).unwrap();
    assert_eq!(ours.merges, theirs.merges);
    assert!(distance(&ours.root, &theirs.root) < 1e-12);
    assert_eq!(ours.merges.iter().map(Vec::len).collect::<Vec<_>>(), [7, 4, 0, 1]);
    for (a, b) in p.gradients(&ours.root).iter().zip(p.gradients(&theirs.root)).take(4) {
        assert!(distance(a, &b) < 1e-11 * largest(&b).max(1.0));
    }
}

/// Every sentence alone, at the same merges: the same root and, summed over the sentences, the same gradients.
#[test]
fn a_batch_is_its_sentences_one_by_one() {
    let reinmax = Estimator::Reinmax.build(&Knobs::default()).unwrap().drop_in().unwrap();
    let lengths = [7, 4, 1, 2, 7, 3];
    let p = Problem::new(&lengths);
    let chosen = merges(&lengths, 7);
    let together = by_kernel(&p, &mut Choice::Drawn(&*reinmax, &mut tape(&chosen, &lengths, false))).unwrap();
    let upstream = normals(&together.root.size(), Kind::Double, 8);
    let all: Vec<&Tensor> = p.inputs.iter().collect();
    let loss = (&together.root * &upstream).sum(Kind::Double);
    let together_gradients = Tensor::f_run_backward(&[loss], &all, false, false).unwrap();
    let mut sums: Vec<Tensor> = all.iter().map(|t| t.zeros_like()).collect();
    for (s, &l) in lengths.iter().enumerate() {
        let [h, c, ..] = &p.inputs;
        let own = |t: &Tensor| t.narrow(0, 0, l as i64).narrow(1, s as i64, 1).contiguous();
        let mut noise = tape(&chosen[s..s + 1], &[l], false);
        let mut choice = Choice::Drawn(&*reinmax, &mut noise);
        let mut pick = |scores: &Tensor, mask: &Tensor| choice.pick(scores, mask);
        let alone = tree::compose(&own(h), &own(c), &[l], &p.weights(), true, &mut pick).unwrap();
        assert_eq!(alone.merges[0], chosen[s]);
        assert!(distance(&alone.root.get(0), &together.root.get(s as i64)) < 1e-13);
        let loss = (&alone.root.get(0) * upstream.get(s as i64)).sum(Kind::Double);
        let gradients = Tensor::f_run_backward(&[loss], &all, false, false).unwrap();
        sums.iter_mut().zip(gradients).filter(|(_, g)| g.defined()).for_each(|(s, g)| *s += g);
    }
    for (a, b) in together_gradients.iter().zip(&sums) {
        assert!(distance(a, b) < 1e-12 * largest(b).max(1.0), "{}", distance(a, b));
    }
}

fn model(leaf: Leaf) -> TreeLstm {
    tch::manual_seed(3);
    let small = Sizes { embedding: 12, hidden: 16, classifier: 9, leaf, ..Sizes::published(16) };
    TreeLstm::new(small, Device::Cpu).unwrap()
}

/// What stands beyond a sentence's end changes no bit; neither does its company, up to the rounding of a matrix product of
/// another shape (float).
#[test]
fn padding_and_company_change_nothing() {
    let set: Vec<Example> = generate(0, 400, &[]).into_iter().filter(|e| e.expression.symbols().len() < 40).collect();
    let set: Vec<&Example> = set.iter().take(24).collect();
    for leaf in [Leaf::Lstm, Leaf::Linear] {
        let model = model(leaf);
        let batch = Batch::new(&set, Units::Tokens, Device::Cpu).unwrap();
        let parsed = model.forward(&batch.ids, &batch.lengths, &mut Choice::Greedy, false).unwrap();
        let inside = Tensor::from_slice(&batch.lengths.iter().map(|&l| l as i64).collect::<Vec<_>>()).unsqueeze(1);
        let beyond = Tensor::arange(batch.ids.size()[1], (Kind::Int64, Device::Cpu)).unsqueeze(0).ge_tensor(&inside);
        let garbled = batch.ids.masked_fill(&beyond, 7);
        assert!(garbled != batch.ids);
        let again = model.forward(&garbled, &batch.lengths, &mut Choice::Greedy, false).unwrap();
        assert!(again.logits == parsed.logits && again.merges == parsed.merges);
        for (i, e) in set.iter().enumerate() {
            let one = Batch::new(&[e], Units::Tokens, Device::Cpu).unwrap();
            let alone = model.forward(&one.ids, &one.lengths, &mut Choice::Greedy, false).unwrap();
            assert_eq!(alone.merges[0], parsed.merges[i]);
            assert!(distance(&alone.logits.get(0), &parsed.logits.get(i as i64)) < 1e-5);
        }
    }
}

/// In training too: the gradients of every parameter depend on no padded word.
#[test]
fn padding_gets_no_gradient() {
    let model = model(Leaf::Lstm);
    let st = Estimator::St.build(&Knobs::default()).unwrap().drop_in().unwrap();
    let lengths = [6, 3, 1];
    let ids = Tensor::from_slice(&[1i64, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 10, 0, 0, 0, 0, 0]).view([3, 6]);
    let garbled = Tensor::from_slice(&[1i64, 2, 3, 4, 5, 6, 7, 8, 9, 15, 14, 15, 10, 15, 14, 15, 14, 15]).view([3, 6]);
    let chosen = merges(&lengths, 1);
    let run = |ids: &Tensor| {
        let mut noise = tape(&chosen, &lengths, false);
        let parsed = model.forward(ids, &lengths, &mut Choice::Drawn(&*st, &mut noise), false).unwrap();
        let loss = parsed.logits.cross_entropy_for_logits(&Tensor::from_slice(&[1i64, 2, 3]));
        let all: Vec<&Tensor> = model.params().iter().map(|(_, t)| t).collect();
        Tensor::f_run_backward(&[loss], &all, false, false).unwrap()
    };
    for ((a, b), (name, _)) in run(&ids).iter().zip(run(&garbled)).zip(model.params().iter()) {
        assert!(*a == b, "{name}");
        assert!(name != "word_embedding.weight" || (largest(&a.get(14)) == 0.0 && largest(&a.get(10)) > 0.0));
    }
}

/// Every parameter gets a gradient under every hard estimator, its own noise included.
#[test]
fn every_hard_estimator_trains_every_parameter() {
    let set = generate(5, 60, &[]);
    let set: Vec<&Example> = set.iter().filter(|e| (8..40).contains(&e.expression.symbols().len())).take(8).collect();
    let batch = Batch::new(&set, Units::Tokens, Device::Cpu).unwrap();
    let hard = Estimator::ALL.iter().filter(|e| e.claims().hard_forward && e.claims().variables == Takes::Both);
    let drop_ins: Vec<_> =
        hard.filter_map(|e| Some((e, e.build(&Knobs::default()).unwrap().drop_in().ok()?))).collect();
    assert!(drop_ins.len() >= 7, "{} hard drop-ins", drop_ins.len());
    for (e, built) in drop_ins {
        let model = model(Leaf::Lstm);
        let mut choice = Choice::Drawn(&*built, &mut TorchNoise);
        let parsed = model.forward(&batch.ids, &batch.lengths, &mut choice, true).unwrap();
        parsed.logits.cross_entropy_for_logits(&batch.labels).backward();
        for (name, t) in model.params().iter() {
            assert!(t.grad().defined() && largest(&t.grad()) > 0.0, "{}: {name}", e.name());
        }
        for (m, &l) in parsed.merges.iter().zip(&batch.lengths) {
            assert!(m.len() == l - 1 && m.iter().enumerate().all(|(i, &k)| k < l - 1 - i), "{m:?} of {l}");
        }
    }
}

#[test]
fn the_leaf_lstm_is_torchs() {
    let (t, b, h) = (6, 3, 4);
    let inputs = parameter(&[t, b, 4 * h], 1);
    let recurrent = parameter(&[4 * h, h], 2);
    let upstream = [normals(&[t, b, h], Kind::Double, 3), normals(&[t, b, h], Kind::Double, 4)];
    let (hs, cs) = leaves::lstm(&inputs, &recurrent).unwrap();
    let (mut their_h, mut their_c) = (vec![], vec![]);
    let (mut hp, mut cp) = (normals(&[b, h], Kind::Double, 5) * 0.0, normals(&[b, h], Kind::Double, 5) * 0.0);
    for i in 0..t {
        let gates = (inputs.get(i) + hp.matmul(&recurrent.tr())).chunk(4, 1);
        cp = gates[1].sigmoid() * cp + gates[0].sigmoid() * gates[2].tanh();
        hp = gates[3].sigmoid() * cp.tanh();
        their_h.push(hp.shallow_clone());
        their_c.push(cp.shallow_clone());
    }
    let theirs = (Tensor::stack(&their_h, 0), Tensor::stack(&their_c, 0));
    assert!(distance(&hs, &theirs.0) < 1e-14 && distance(&cs, &theirs.1) < 1e-14);
    let gradients = |h: &Tensor, c: &Tensor, which: usize| {
        let loss = match which {
            0 => (h * &upstream[0]).sum(Kind::Double),
            1 => (c * &upstream[1]).sum(Kind::Double),
            _ => (h * &upstream[0] + c * &upstream[1]).sum(Kind::Double),
        };
        Tensor::f_run_backward(&[loss], &[&inputs, &recurrent], true, false).unwrap()
    };
    let ours = gradients(&hs, &cs, 2);
    for (a, b) in ours.iter().zip(gradients(&theirs.0, &theirs.1, 2)) {
        assert!(distance(a, &b) < 1e-13, "{}", distance(a, &b));
    }
    // gradients of one output alone arrive as well
    let (hs, cs) = leaves::lstm(&inputs, &recurrent).unwrap();
    let loss = (&cs * &upstream[1]).sum(Kind::Double);
    let ours = Tensor::f_run_backward(&[loss], &[&inputs, &recurrent], false, false).unwrap();
    for (a, b) in ours.iter().zip(gradients(&theirs.0, &theirs.1, 1)) {
        assert!(distance(a, &b) < 1e-13);
    }
    drop(hs);
}

#[test]
fn what_cannot_be_parsed_is_refused() {
    let model = model(Leaf::Lstm);
    let ids = Tensor::from_slice(&[1i64, 2, 3, 4]).view([1, 4]);
    let relaxed = Estimator::GumbelSoftmax.build(&Knobs::default()).unwrap().drop_in().unwrap();
    let error = model.forward(&ids, &[4], &mut Choice::Drawn(&*relaxed, &mut TorchNoise), true).unwrap_err();
    assert!(matches!(&error, Error::Usage(m) if m.contains("hard choice")), "{error}");
    for lengths in [&[5][..], &[0], &[4, 4]] {
        let error = model.forward(&ids, lengths, &mut Choice::Greedy, false).unwrap_err();
        assert!(error.to_string().contains("lengths 1 to 4"), "{error}");
    }
    assert!(model.forward(&Tensor::from_slice(&[1i64]), &[1], &mut Choice::Greedy, false).is_err());
    let bad = |sizes: Sizes| TreeLstm::new(sizes, Device::Cpu).unwrap_err().to_string();
    assert!(bad(Sizes { hidden: 0, ..Sizes::published(16) }).contains("--hidden-dim"));
    assert!(bad(Sizes { dropout: 1.0, ..Sizes::published(16) }).contains("--dropout"));
}

#[test]
fn the_published_model_has_its_parameters() {
    let model = TreeLstm::new(Sizes::published(21), Device::Cpu).unwrap();
    let names: Vec<_> = model.params().iter().map(|(n, t)| (n.to_string(), t.size())).collect();
    assert!(names.contains(&("encoder.treelstm_layer.comp_linear.weight".into(), vec![1500, 600])));
    assert!(names.contains(&("encoder.leaf_rnn_cell.weight_hh".into(), vec![1200, 300])));
    let weight = |n: &str| model.params().iter().find(|(m, _)| *m == n).unwrap().1.detach();
    // orthogonal columns
    for name in ["encoder.treelstm_layer.comp_linear.weight", "encoder.leaf_rnn_cell.weight_hh"] {
        let w = weight(name);
        let eye = Tensor::eye(w.size()[1], (Kind::Float, Device::Cpu));
        assert!(distance(&w.tr().matmul(&w), &eye) < 1e-4, "{name}");
    }
    let forget = weight("encoder.leaf_rnn_cell.bias_ih").narrow(0, 300, 300);
    assert!(forget.eq(1.0).all().int64_value(&[]) == 1);
}
