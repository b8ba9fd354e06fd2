//! The topology search space of NATS-Bench, its table, the multilinear extension, and the search network.
mod common;
use common::{distance, normals, skip};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use tch::{Device, Kind, Reduction, Tensor};
use thruway::data::nats_bench::{Measure, Task};
use thruway::data::{NatsBench, Places};
use thruway::estimators::{Estimator, Knobs};
use thruway::nas::{CELLS, Cell, Multilinear, Op};
use thruway::nn::SearchNet;
use thruway::nn::search_net::{Activation, Choice, Sizes, backward};
use thruway::optim::{Sgd, sgd};
use thruway::{exact, probe};

fn cell(text: &str) -> Cell {
    text.parse().unwrap()
}

#[test]
fn nas_every_cell_has_its_string_and_code() {
    let all: Vec<Cell> = Cell::all().collect();
    let strings: HashSet<String> = all.iter().map(Cell::to_string).collect();
    assert_eq!((all.len(), strings.len()), (15_625, 15_625));
    for (code, c) in all.iter().enumerate() {
        assert_eq!((c.code(), Cell::from_code(code)), (code, Some(*c)));
        assert_eq!(cell(&c.to_string()), *c);
        assert_eq!(serde_json::from_str::<Cell>(&serde_json::to_string(c).unwrap()).unwrap(), *c);
        assert_eq!(Cell::from_classes(&c.0.map(|op| op as i64)).unwrap(), *c);
    }
    assert_eq!(Cell::from_code(CELLS), None);
    // codes number the states as the oracle lists them
    let states = exact::states(6, 5, Kind::Int64, Device::Cpu).unwrap().argmax(-1, false);
    for code in [0, 1, 4321, 15_624] {
        let classes = Vec::<i64>::try_from(states.get(code)).unwrap();
        assert_eq!(Cell::from_classes(&classes).unwrap().code(), code as usize);
    }
    // within a node the order is free, as in the benchmark
    let shuffled = "|none~0|+|skip_connect~1|none~0|+|none~2|none~1|avg_pool_3x3~0|";
    let sorted = "|none~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|none~2|";
    assert_eq!(cell(shuffled).to_string(), sorted);
}

#[test]
fn nas_6466_cells_up_to_isomorphism_and_4930_functions() {
    let (mut classes, mut functions) = (HashMap::new(), HashSet::new());
    for c in Cell::all() {
        // isomorphic cells are one function
        assert_eq!(classes.entry(c.isomorphism()).or_insert(c.function()), &c.function(), "{c}");
        functions.insert(c.function());
    }
    assert_eq!((classes.len(), functions.len()), (6_466, 4_930));
    // through a skip connection: node 2 is node 1
    let a = cell("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|");
    let b = cell("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|nor_conv_1x1~1|none~2|");
    assert!(a != b && a.isomorphism() != b.isomorphism() && a.function() == b.function());
}

#[test]
fn nas_what_is_no_cell_is_refused() {
    for (text, word) in [
        ("", "1 nodes"),
        ("|none~0|", "1 nodes"),
        ("|none~0|+|none~0|none~1|", "2 nodes"),
        ("none~0+|none~0|none~1|+|none~0|none~1|none~2|", "not between bars"),
        ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", "has no ~"),
        ("|sep_conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "\"sep_conv\" is none of none, skip_connect"),
        ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "node 1 cannot come from \"1\""),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "edge 2<-0 twice"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|", "edge 3<-2 is missing"),
    ] {
        let error = text.parse::<Cell>().unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("|op~0|+|op~0|op~1|"), "{text:?}: {error}");
    }
    assert!(Cell::from_classes(&[0, 1, 2, 3, 4, 5]).is_err() && Cell::from_classes(&[0; 5]).is_err());
}

/// A table of made-up accuracies: the cell's code in hundredths of a percent below 90.
fn made_up() -> Vec<String> {
    let mut classes = HashMap::new();
    let mut lines = vec!["index,arch_str,iso_class".to_string()];
    for task in Task::ALL {
        lines[0] += &Measure::ALL.map(|m| format!(",{task}_{}", m.name())).concat();
    }
    for c in Cell::all() {
        let next = classes.len();
        let class = *classes.entry(c.isomorphism()).or_insert(next);
        // any one-to-one numbering
        let index = (c.code() * 7 + 3) % CELLS;
        let accuracy = (c.code() % 9_000) as f64 / 100.0;
        let values: Vec<String> = (0..9).map(|i| (accuracy + i as f64).to_string()).collect();
        lines.push(format!("{index},{c},{class},{}", values.join(",")));
    }
    lines
}

fn write(path: &Path, lines: &[String]) {
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn nas_a_table_is_read_and_its_damage_named_by_line() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("table.csv");
    let lines = made_up();
    write(&path, &lines);
    let table = NatsBench::read(&path).unwrap();
    assert!(!table.verified);
    for code in [0, 17, 15_624] {
        let c = Cell::from_code(code).unwrap();
        let index = (code * 7 + 3) % CELLS;
        assert_eq!((table.index(&c), table.cell(index)), (index, Some(c)));
        assert_eq!(table.query(&c, Task::Cifar100, Measure::Valid12), (code % 9_000) as f64 / 100.0 + 4.0);
    }
    assert_eq!(table.cell(CELLS), None);
    let (best, top) = table.best(Task::Cifar10, Measure::Test200);
    assert_eq!((best.code() % 9_000, top), (8_999, 89.99));
    assert_eq!(
        (table.rank(&best, Task::Cifar10, Measure::Test200), table.regret(&best, Task::Cifar10, Measure::Test200)),
        (1, 0.0)
    );
    let worse = Cell::from_code(8_990).unwrap();
    assert_eq!(table.rank(&worse, Task::Cifar10, Measure::Test200), 10);

    let damaged = |change: &dyn Fn(&mut Vec<String>), words: &str| {
        let mut lines = lines.clone();
        change(&mut lines);
        write(&path, &lines);
        let error = NatsBench::read(&path).unwrap_err().to_string();
        assert!(error.contains("table.csv: ") && error.contains(words), "{words:?} is not in: {error}");
    };
    damaged(&|l| l[0] = l[0].replace("cifar100_test_e12", "x"), "line 1: no column cifar100_test_e12");
    damaged(&|l| l[4] += ",1", "line 5: 13 fields, expected 12");
    damaged(&|l| l[9] = format!("x{}", l[9]), "line 10: index \"x");
    damaged(&|l| l[9] = l[9].replace("none~0", "non~0"), "line 10: an architecture");
    damaged(&|l| l[9] = l[8].clone(), "line 10: |none~0|");
    damaged(&|l| l[2] = l[2].replacen("10,", "3,", 1), "line 3: index 3 is there twice");
    damaged(&|l| l[100] = l[100].replacen(",0.99", ",100.99", 1), "line 101: cifar10_test_e200");
    damaged(&|l| l[7] = l[7].replacen("|,", "|,77", 1), "is not the class of");
    damaged(&|l| drop(l.pop()), "holds 15624 cells, expected 15625");
    damaged(&Vec::clear, "line 1: no column");
    std::fs::write(&path, [0x1f, 0x8b, 8, 0, 1]).unwrap();
    assert!(NatsBench::read(&path).unwrap_err().to_string().contains("is damaged"));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(NatsBench::read(&path).unwrap_err().to_string().contains("is not text"));
    // the benchmark's own release, and what is not there
    for own in [place.path().to_path_buf(), place.path().join("NATS-tss-v1_0-3ffb9.pickle.pbz2")] {
        let error = NatsBench::read(&own).unwrap_err().to_string();
        assert!(error.contains("pickles of Python objects, is not read") && error.contains("export it"), "{error}");
    }
    assert!(NatsBench::read(&place.path().join("no.csv")).unwrap_err().to_string().contains("cannot be read"));
    // where data sets lie only the known table is taken
    let folder = place.path().join("nats_bench");
    std::fs::create_dir(&folder).unwrap();
    let places = Places { external: None, project: place.path().into(), offline: true };
    assert!(NatsBench::load_from(&places).unwrap().is_none());
    write(&folder.join("nats_tss.csv"), &lines);
    let error = NatsBench::load_from(&places).unwrap_err().to_string();
    assert!(error.contains("not the known content") && error.contains("--table"), "{error}");
}

#[test]
fn nas_the_benchmarks_best_cells_and_accuracies() {
    let Some(table) = NatsBench::load().unwrap() else {
        return skip("nas_the_benchmarks_best_cells_and_accuracies", "no nats_bench/nats_tss.csv.gz in THRUWAY_DATA");
    };
    assert!(table.verified);
    // Dong et al. 2021: the best of CIFAR-10, CIFAR-100 and ImageNet16-120
    for (task, index, accuracy) in
        [(Task::Cifar10, 6111, 94.37), (Task::Cifar100, 9930, 73.51), (Task::Imagenet16, 857, 47.31)]
    {
        let (best, top) = table.best(task, Measure::Test200);
        assert_eq!((table.index(&best), (top * 100.0).round() / 100.0), (index, accuracy), "{task}");
        assert_eq!(table.rank(&best, task, Measure::Test200), 1);
        assert_eq!(table.regret(&best, task, Measure::Test200), 0.0);
    }
    let tie = table.cell(13_714).unwrap();
    assert_eq!(table.regret(&tie, Task::Cifar10, Measure::Test200), 0.0);
    let best = table.cell(6111).unwrap();
    assert_eq!(
        best.to_string(),
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    );
    let first = table.cell(0).unwrap();
    assert_eq!(table.query(&first, Task::Cifar10, Measure::Test200), 85.8633);
    assert_eq!(table.query(&first, Task::Imagenet16, Measure::Valid12), 18.4667);
}

fn values() -> Vec<f64> {
    Vec::try_from(normals(&[CELLS as i64], Kind::Double, 3)).unwrap()
}

#[test]
fn nas_the_extension_is_the_table_and_its_slopes_are_neighbours() {
    let values = values();
    let f = Multilinear::new(&values, Device::Cpu).unwrap();
    let codes = [0usize, 9_342, 15_624, 777];
    for code in codes {
        let c = Cell::from_code(code).unwrap();
        let x = Tensor::from_slice(&c.0.map(|op| op as i64)).one_hot(5).to_kind(Kind::Double).set_requires_grad(true);
        let value = f.at(&x).unwrap();
        assert_eq!((value.double_value(&[]), f.of(&c)), (values[code], values[code]));
        value.backward();
        for edge in 0..6 {
            for op in Op::ALL {
                let mut other = c;
                other.0[edge] = op;
                assert_eq!(x.grad().double_value(&[edge as i64, op as i64]), values[other.code()]);
            }
        }
    }
    assert!(f.at(&Tensor::zeros([5, 6], (Kind::Double, Device::Cpu))).is_err());
    assert!(Multilinear::new(&values[1..], Device::Cpu).is_err());
    // the expectation over all cells, and its gradient, are one evaluation at the probabilities
    let logits = normals(&[1, 6, 5], Kind::Double, 4);
    let by_table = Tensor::from_slice(&values).view([CELLS as i64, 1]);
    let leaf = logits.copy().set_requires_grad(true);
    let enumerated = exact::expectation_of_table(&leaf, &by_table).unwrap();
    enumerated.backward();
    let ours = logits.copy().set_requires_grad(true);
    let value = f.at(&ours.softmax(-1, Kind::Double)).unwrap();
    value.backward();
    // sums of 15,625 terms of size 1 in another order
    assert!(distance(&value, &enumerated) < 1e-12 && distance(&ours.grad(), &leaf.grad()) < 1e-12);
}

#[test]
fn nas_st_and_reinmax_are_exact_on_the_extension_and_not_on_a_curve_through_it() {
    let shares: Vec<f64> = values().iter().map(|v| 0.8 + 0.15 * v.tanh()).collect();
    let f = Multilinear::new(&shares, Device::Cpu).unwrap();
    let logits = normals(&[1, 6, 5], Kind::Double, 5);
    let gradient = |f: &Multilinear| {
        let leaf = logits.copy().set_requires_grad(true);
        f.at(&leaf.softmax(-1, Kind::Double)).unwrap().backward();
        leaf.grad().squeeze_dim(0)
    };
    let bias = |e: Estimator, curved: bool| {
        let log = |t: &Tensor| -> thruway::Result<Tensor> { Ok(t.f_neg()?.f_log1p()?) };
        let truth = if curved { gradient(&f.map(log).unwrap()) } else { gradient(&f) };
        let objective = |x: &Tensor| if curved { log(&f.at(x)?) } else { f.at(x) };
        probe::accuracy(e, &Knobs::default(), &logits, &objective, &truth, 2, &mut probe::stream(0, 0)).unwrap().bias
    };
    for e in [Estimator::St, Estimator::Reinmax] {
        assert!(bias(e, false) < 1e-11, "{e:?}: {}", bias(e, false));
    }
    assert!(bias(Estimator::Gst, false) > 1e-3);
    assert!(bias(Estimator::St, true) > 1e-2 && bias(Estimator::Reinmax, true) < bias(Estimator::St, true));
}

const TINY: Sizes = Sizes { channels: 2, cells: 1, classes: 10 };
/// Every operation but `none`, and every node used.
const FULL: &str = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|nor_conv_3x3~1|skip_connect~2|";

fn one_hot(c: &Cell) -> Tensor {
    Tensor::from_slice(&c.0.map(|op| op as i64)).one_hot(5).to_kind(Kind::Float)
}

fn images(n: i64) -> (Tensor, Tensor) {
    (normals(&[n, 3, 8, 8], Kind::Float, 6), Tensor::arange(n, (Kind::Int64, Device::Cpu)).remainder(10))
}

fn loss(net: &SearchNet, choice: Choice) -> Tensor {
    let (x, y) = images(6);
    net.forward(&x, choice, true).unwrap().cross_entropy_loss(&y, None::<Tensor>, Reduction::Mean, -100, 0.0)
}

/// Gradient `[6, 5]` of the loss in one-hot weights.
fn gradient(net: &SearchNet, c: &Cell, activation: Activation) -> Tensor {
    let w = one_hot(c).set_requires_grad(true);
    loss(net, Choice::Drawn(&w, activation)).backward();
    w.grad()
}

#[test]
fn nas_the_published_network_has_its_parameters() {
    let net = SearchNet::search(Sizes::default(), Device::Cpu).unwrap();
    // 1,692,728 with the thirty logits of the architecture
    assert_eq!(net.params().count() + 30, 1_692_728);
    assert_eq!(net.buffers().count(), 2 * (1 + 2 * 2));
    let scores = tch::no_grad(|| {
        net.forward(&Tensor::zeros([1, 3, 32, 32], (Kind::Float, Device::Cpu)), Choice::Cell(&cell(FULL)), false)
    });
    assert_eq!(scores.unwrap().size(), [1, 10]);
    for wrong in [Sizes { channels: 0, ..TINY }, Sizes { cells: 0, ..TINY }, Sizes { classes: 0, ..TINY }] {
        assert!(SearchNet::search(wrong, Device::Cpu).is_err());
    }
}

#[test]
fn nas_activations_agree_on_the_value() {
    tch::manual_seed(0);
    let net = SearchNet::search(TINY, Device::Cpu).unwrap();
    let (x, _) = images(4);
    for code in [0, 9_342, 15_624, 3_000, 12_121, cell(FULL).code()] {
        let c = Cell::from_code(code).unwrap();
        let w = one_hot(&c);
        let alone = net.forward(&x, Choice::Cell(&c), true).unwrap();
        for choice in [
            Choice::Drawn(&w, Activation::Selected),
            Choice::Drawn(&w, Activation::Full),
            Choice::Drawn(&w, Activation::Published),
            Choice::Mixed(&w),
        ] {
            // a sum with exact zeros, and a constant that batch norm takes out up to rounding
            assert!(distance(&net.forward(&x, choice, true).unwrap(), &alone) < 1e-4, "{c} {choice:?}");
        }
    }
    let half = Tensor::full([6, 5], 0.2, (Kind::Float, Device::Cpu));
    let mixed = net.forward(&x, Choice::Mixed(&half), true).unwrap();
    let alone = net.forward(&x, Choice::Cell(&cell(FULL)), true).unwrap();
    assert!(distance(&mixed, &alone) > 1e-3);
    assert!(net.forward(&x, Choice::Mixed(&half.narrow(0, 0, 5)), true).is_err());
}

#[test]
fn nas_gradients_of_the_choice_are_what_the_activation_says() {
    tch::manual_seed(1);
    let net = SearchNet::search(TINY, Device::Cpu).unwrap();
    let c = cell(FULL);
    let [selected, full, published] =
        [Activation::Selected, Activation::Full, Activation::Published].map(|a| gradient(&net, &c, a));
    let entry = |t: &Tensor, e: usize, k: usize| t.double_value(&[e as i64, k as i64]);
    for (e, chosen) in c.0.iter().enumerate() {
        let chosen = *chosen as usize;
        let others: Vec<usize> = (0..5).filter(|k| *k != chosen).collect();
        // the chosen operation's is the same in all three; f32 sums in another order
        for g in [&selected, &published] {
            assert!((entry(g, e, chosen) - entry(&full, e, chosen)).abs() < 1e-5);
        }
        // unselected: nothing, or as published four equal values, the sum of the upstream gradient
        assert!(others.iter().all(|k| entry(&selected, e, *k) == 0.0));
        assert!(others.iter().all(|k| entry(&published, e, *k) == entry(&published, e, others[0])));
        assert_eq!(entry(&full, e, 0), 0.0, "none passes nothing");
    }
    assert!(distance(&full, &published) > 1e-2, "the two differ in what was not chosen");
    // central differences of the function that each states; f32 rounds the loss at some 1e-6, divided by a step of
    // 1e-3; a ReLU that changes sides within the step bends the difference by some percent
    for (activation, analytic) in [(Activation::Full, &full), (Activation::Published, &published)] {
        for e in 0..6 {
            for k in 0..5 {
                let at = |step: f64| {
                    let w = one_hot(&c);
                    let _ = w.get(e).get(k).g_add_scalar_(step);
                    let w = &w;
                    tch::no_grad(|| loss(&net, Choice::Drawn(w, activation)).double_value(&[]))
                };
                let numeric = (at(5e-4) - at(-5e-4)) / 1e-3;
                let exact = entry(analytic, e as usize, k as usize);
                assert!(
                    (numeric - exact).abs() < 5e-3 + 0.05 * exact.abs(),
                    "{activation:?} {e} {k}: {numeric} {exact}"
                );
            }
        }
    }
}

#[test]
fn nas_blocked_ways_give_no_gradient_and_nothing_breaks() {
    tch::manual_seed(2);
    let net = SearchNet::search(TINY, Device::Cpu).unwrap();
    let blocked = cell("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|none~2|");
    let logits = Tensor::zeros([6, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let w = |logits: &Tensor, c: &Cell| one_hot(c) + (logits - logits.detach());
    assert!(!backward(&loss(&net, Choice::Drawn(&w(&logits, &blocked), Activation::Selected)), &logits).unwrap());
    assert!(!logits.grad().defined());
    assert!(backward(&loss(&net, Choice::Drawn(&w(&logits, &blocked), Activation::Full)), &logits).unwrap());
    // the gradient of the choice alone: equal to the whole backward's, and no weight has one
    assert!(net.params().iter().all(|(_, t)| !t.grad().defined()));
    assert!(distance(&logits.grad(), &gradient(&net, &blocked, Activation::Full)) < 1e-6);
    // node 1 has no way out: what enters it gets nothing
    let dead = cell("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|");
    let (selected, full) = (gradient(&net, &dead, Activation::Selected), gradient(&net, &dead, Activation::Full));
    for (e, op) in dead.0.iter().enumerate() {
        let at = [e as i64, *op as i64];
        assert!((selected.double_value(&at) - full.double_value(&at)).abs() < 1e-5, "edge {e}");
    }
}

#[test]
fn nas_batch_norm_is_the_benchmarks() {
    tch::manual_seed(3);
    let net = SearchNet::search(TINY, Device::Cpu).unwrap();
    let c = cell(FULL);
    let (x, _) = images(6);
    let means = |net: &SearchNet| -> Vec<Tensor> { net.buffers().map(|(_, t)| t.copy()).collect() };
    let before = means(&net);
    let whole = tch::no_grad(|| net.forward(&x, Choice::Cell(&c), false).unwrap());
    assert_eq!(means(&net), before, "an evaluation keeps the running statistics");
    // in the cells they are the batch's own even then
    let part = tch::no_grad(|| net.forward(&x.narrow(0, 0, 3), Choice::Cell(&c), false).unwrap());
    assert!(distance(&part, &whole.narrow(0, 0, 3)) > 1e-4);
    let _ = tch::no_grad(|| net.forward(&x, Choice::Cell(&c), true).unwrap());
    assert_ne!(means(&net), before);
    // a network of one cell keeps them everywhere, has that cell's convolutions alone, and takes no other cell
    let fixed = SearchNet::fixed(TINY, c, Device::Cpu).unwrap();
    let [whole, part] =
        [6, 3].map(|n| tch::no_grad(|| fixed.forward(&x.narrow(0, 0, n), Choice::Cell(&c), false).unwrap()));
    assert!(distance(&part, &whole.narrow(0, 0, 3)) < 1e-5);
    assert!(fixed.params().count() < net.params().count());
    let other = cell("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|");
    assert!(fixed.forward(&x, Choice::Cell(&other), false).is_err());
    // state by name
    let again = SearchNet::search(TINY, Device::Cpu).unwrap();
    let all: HashMap<String, Tensor> =
        net.params().iter().chain(net.buffers()).map(|(n, t)| (n.to_string(), t.detach())).collect();
    again.load(|n| all.get(n).map(Tensor::shallow_clone)).unwrap();
    let [a, b] = [&net, &again].map(|n| tch::no_grad(|| n.forward(&x, Choice::Cell(&c), false).unwrap()));
    assert_eq!(a, b);
    assert!(again.load(|n| all.get(n).filter(|_| n != "stem.norm.running_var").map(Tensor::shallow_clone)).is_err());
}

#[test]
fn nas_sgd_takes_a_new_rate() {
    let p = Tensor::from(1.0f64).set_requires_grad(true);
    let mut sgd =
        Sgd::new(sgd::Settings { momentum: 0.0, nesterov: false, ..sgd::Settings::nesterov(0.1) }, [("p", &p)])
            .unwrap();
    sgd.set_lr(0.25).unwrap();
    assert_eq!(sgd.lr(), 0.25);
    (&p * 2.0).backward();
    sgd.step().unwrap();
    assert_eq!(p.double_value(&[]), 0.5);
    assert!(sgd.set_lr(0.0).is_err() && sgd.set_lr(f64::NAN).is_err());
}

/// Scores and gradients of the network against PyTorch's own layers in the published layout, recorded in float64 by
/// `tests/parity/record_search_net.py`. Ours computes in float32: some ten layers of batch norm over 3 images leave 1e-5 or so; a
/// mean that counted the padding, or a ReLU out of place, moves scores by 1e-2 and more.
#[test]
fn nas_search_network_equals_pytorch_fixture() {
    let text = std::fs::read_to_string("tests/fixtures/search_net.json").unwrap();
    let fixture: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(fixture["format"], "search-net-1");
    let wave = |size: &[i64], rate: f64, phase: f64| {
        let n: i64 = size.iter().product();
        ((Tensor::arange(n, (Kind::Double, Device::Cpu)) * rate + phase).sin()).view(size)
    };
    let values: HashMap<String, Tensor> = fixture["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(k, p)| {
            let name = p[0].as_str().unwrap();
            let size: Vec<i64> = serde_json::from_value(p[1].clone()).unwrap();
            let base = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
            (name.to_owned(), (wave(&size, 1.3, 0.9 * k as f64) * 0.4 + base).to_kind(Kind::Float))
        })
        .collect();
    let net = SearchNet::search(TINY, Device::Cpu).unwrap();
    assert_eq!(net.params().iter().count(), values.len());
    net.params().load(|name| values.get(name).map(Tensor::shallow_clone)).unwrap();
    let x = wave(&[3, 3, 8, 8], 0.37, 0.0).to_kind(Kind::Float);
    let numbers = |v: &serde_json::Value| -> Vec<f64> {
        match v {
            serde_json::Value::Array(a) if a[0].is_array() => {
                a.iter().flat_map(|r| r.as_array().unwrap()).map(|x| x.as_f64().unwrap()).collect()
            }
            serde_json::Value::Array(a) => a.iter().map(|x| x.as_f64().unwrap()).collect(),
            _ => vec![],
        }
    };
    let agree = |got: &Tensor, want: &serde_json::Value, what: &str| {
        let want = numbers(want);
        if want.is_empty() {
            assert!(!got.defined() || got.abs().max().double_value(&[]) == 0.0, "{what}");
            return;
        }
        let got = if got.defined() {
            got.to_kind(Kind::Double).flatten(0, -1)
        } else {
            Tensor::zeros_like(&Tensor::from_slice(&want))
        };
        let want = Tensor::from_slice(&want);
        let off = (&got - &want).abs().max().double_value(&[]) / want.abs().max().double_value(&[]).max(1.0);
        assert!(off < 2e-4, "{what}: off by {off}");
    };
    let named = |name: &str| net.params().iter().find(|(n, _)| *n == name).unwrap().1.shallow_clone();
    let cases = fixture["cases"].as_array().unwrap();
    for case in cases {
        let what = format!("{} {}", case["cell"], case["activation"]);
        let ops: Vec<i64> = serde_json::from_value(case["cell"].clone()).unwrap();
        let w = Tensor::from_slice(&ops).one_hot(5).to_kind(Kind::Float).set_requires_grad(true);
        let activation = if case["activation"] == "full" { Activation::Full } else { Activation::Published };
        for (_, p) in net.params().iter() {
            p.shallow_clone().zero_grad();
        }
        let scores = net.forward(&x, Choice::Drawn(&w, activation), true).unwrap();
        let y = Tensor::arange(3, (Kind::Int64, Device::Cpu));
        scores.cross_entropy_loss(&y, None::<Tensor>, Reduction::Mean, -100, 0.0).backward();
        agree(&scores, &case["scores"], &format!("{what}: scores"));
        agree(&w.grad(), &case["choice"], &format!("{what}: choice"));
        agree(&named("stem.conv.weight").grad(), &case["stem"], &format!("{what}: stem"));
        agree(&named("cells.4.3<-1.nor_conv_3x3.conv.weight").grad(), &case["last"], &format!("{what}: last"));
    }
    println!("fixture search_net.json: {} cases", cases.len());
}
