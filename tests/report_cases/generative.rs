//! Runs of `sbn-vae` beside Table 6 of Liu et al. and the tables of GSB and FouST.
use super::{at, table, tables, write_run};
use serde_json::{Value, json};
use std::path::Path;
use thruway::report::published;

/// Shape of the tables of GSB and FouST, entries from their corners, and ratios that the papers' texts give: REBAR is 15 and 40
/// times slower than the biased estimators; S = 1 takes about 3 seconds more than Gumbel-softmax.
#[test]
fn published_tables_of_generative_models_are_whole() {
    let all = published::generative();
    let shape: Vec<_> = all.iter().map(|t| (t.paper.short(), t.table, t.cells.len(), t.columns.len())).collect();
    let (gsb, foust) = ("GSB (Echraibi et al. 2020)", "FouST (Pervez, Cohen & Gavves 2020)");
    let want = [(gsb, 1, 30, 6), (gsb, 2, 16, 4), (gsb, 3, 8, 2), (foust, 1, 10, 2), (foust, 2, 5, 4)];
    assert_eq!(shape, want.map(|(p, t, n, c)| (p.to_string(), t, n, c)));
    for t in all {
        for c in &t.cells {
            // a mean is the printed figure without its sign
            let printed = c.printed.as_deref().unwrap();
            let figures: Vec<f64> = printed.split([' ', '±']).filter_map(|w| w.parse::<f64>().ok()).collect();
            let sign = if t.unit == "nats" { -1.0 } else { 1.0 };
            assert_eq!(Some(&(sign * c.mean)), figures.first(), "{printed}");
            assert_eq!(c.std.as_ref(), figures.get(1), "{printed}");
            assert!(t.rows.contains(&c.row) && t.columns.contains(&c.column), "{c:?}");
        }
    }
    let cell = |t: usize, column: &str, row: &str, samples| all[t].cell(column, row, samples).map(|c| (c.mean, c.std));
    assert_eq!(cell(0, "gsb-sbn1_mnist", "rebar", None), Some((114.14, Some(0.44))));
    assert_eq!(cell(0, "gsb-vae_omniglot", "local-expectation", Some(10)), Some((129.48, Some(0.38))));
    assert_eq!(cell(0, "gsb-vae_omniglot", "local-expectation", Some(2)), None);
    assert_eq!(cell(1, "gsb-cat-vae_mnist", "gumbel-softmax", Some(1)), Some((122.97, Some(5.68))));
    assert_eq!(cell(4, "foust-20", "foust", None), Some((87.86, None)));
    let ratio = |t: usize, column: &str, (a, n), b: &str| {
        cell(t, column, a, n).unwrap().0 / cell(t, column, b, None).unwrap().0
    };
    assert!((ratio(3, "foust-2", ("rebar", None), "st") - 15.84).abs() < 0.01);
    assert!((ratio(3, "foust-5", ("rebar", None), "st") - 41.36).abs() < 0.01);
    let more = cell(2, "gsb-cat-vae", "local-expectation", Some(1)).unwrap().0 - 4.13;
    assert!((more - 3.19).abs() < 1e-9);
}

/// A run of `sbn-vae` at the length of Table 6, frozen evaluation and moving mean alike.
fn write_generative(dir: &Path, seed: i64, preset: &str, estimator: &str, edit: impl Fn(&mut Value, &mut Value)) {
    write_run(dir, seed, |c, s| {
        (c["family"], s["family"]) = (json!("sbn-vae"), json!("sbn-vae"));
        c["config"] = json!({"dataset": "mnist", "preset": preset, "estimator": estimator, "samples": 2, "kl": "sampled",
            "lr": 0.001, "ll_samples": 200, "edition": null, "beside_preset": []});
        (s["steps"], s["epochs"]) = (json!(1_000_000), json!(2000));
        s["final"] = json!({"train_neg_elbo": 99.0 + 0.1 * seed as f64, "frozen_neg_elbo": 101.0 + 0.1 * seed as f64});
        edit(c, s)
    });
}

/// Table 6 stands beside runs of the right preset and evaluation, and names everything that is not as published.
#[test]
fn table_6_is_gated_on_all_settings() {
    let root = tempfile::tempdir().unwrap();
    let put = |name: &str, preset: &str, estimator: &str, edit: &dyn Fn(&mut Value, &mut Value)| {
        for seed in 0..2 {
            write_generative(&root.path().join(format!("{name}/{seed}")), seed, preset, estimator, edit);
        }
    };
    put("whole", "rodeo-2x200", "rodeo", &|_, _| {});
    put("short", "rodeo-2x200", "disarm", &|c, s| {
        s["steps"] = json!(25_000);
        c["config"]["lr"] = json!(0.01);
        c["config"]["beside_preset"] = json!(["lr 0.01, preset 0.001"]);
    });
    put("old", "rodeo-2x200", "double-cv", &|c, _| drop(c["config"].as_object_mut().unwrap().remove("beside_preset")));
    put("relax", "rodeo-2x200", "relax", &|c, _| c["config"]["samples"] = Value::Null);
    put("reinmax", "rodeo-2x200", "reinmax", &|_, _| {});
    put("theirs", "reinmax-2x200", "reinmax", &|_, _| {});
    let t = table(root.path(), "sbn-vae-mnist-rodeo-2x200-frozen_neg_elbo");
    assert!(t.title.ends_with("Table 6 of Liu et al. 2023"), "{}", t.title);
    let row = |name: &str| ["published", "its n", "z"].map(|c| at(&t, name, c).to_string());
    let rodeo = ["101.89 ± 0.17", "not stated", "its n is not stated"].map(String::from);
    assert_eq!(row("rodeo, 2 samples"), rodeo);
    assert_eq!(row("disarm, 2 samples")[2], "25000 of 1000000 steps; lr 0.01, preset 0.001");
    assert_eq!(row("double-cv, 2 samples")[2], "a run does not say what it changed of the preset");
    let relax = row("relax");
    assert_eq!(relax[0], "101.990 ± 0.040", "three evaluations whatever its draws");
    assert!(relax[2].contains("other settings"), "{relax:?}");
    // ReinMax's row is of its authors' preset and their moving mean
    assert_eq!(row("reinmax, 2 samples")[2], "nothing published");
    let theirs = table(root.path(), "sbn-vae-mnist-reinmax-2x200-train_neg_elbo");
    assert_eq!(at(&theirs, "reinmax, 2 samples", "published"), "98.17 ± 0.29");
    let names: Vec<String> = tables(root.path()).into_iter().map(|t| t.name).collect();
    assert!(!names.contains(&"sbn-vae-mnist-reinmax-2x200-frozen_neg_elbo".to_string()), "{names:?}");
}

/// GSB and FouST: why there is no z even at the published length and evaluation.
#[test]
fn generative_tables_are_compared_under_their_conditions() {
    let root = tempfile::tempdir().unwrap();
    let put = |name: &str, preset: &str, estimator: &str, edit: &dyn Fn(&mut Value, &mut Value)| {
        for seed in 0..2 {
            write_generative(&root.path().join(format!("{name}/{seed}")), seed, preset, estimator, |c, s| {
                (s["epochs"], s["steps"]) = (json!(500), json!(250_000));
                s["final"] = json!({"test_neg_log_likelihood": 100.0 + 0.1 * seed as f64, "test_neg_elbo": 92.0,
                    "epoch_s": 30.0});
                edit(c, s)
            });
        }
    };
    put("bsb", "gsb-sbn2", "local-expectation", &|c, _| c["config"]["samples"] = json!(5));
    put("rebar", "gsb-vae", "rebar", &|c, s| {
        (c["config"]["samples"], c["config"]["ll_samples"]) = (Value::Null, json!(100));
        s["epochs"] = json!(20);
    });
    put("csb", "gsb-cat1", "local-expectation", &|c, _| c["config"]["samples"] = json!(1));
    put("foust", "foust-2", "foust", &|c, _| c["config"]["samples"] = Value::Null);
    let bsb = table(root.path(), "sbn-vae-mnist-gsb-sbn2-test_neg_log_likelihood");
    assert!(bsb.title.ends_with("Table 1 of GSB (Echraibi et al. 2020)"), "{}", bsb.title);
    assert_eq!(at(&bsb, "local-expectation, 5 samples", "published"), "100.44 ± 0.28");
    // at the published length and evaluation, but of pixels of which nothing is said
    let unsaid = "the paper does not state binarisation and scaling of the pixels";
    assert_eq!(at(&bsb, "local-expectation, 5 samples", "z"), unsaid);
    let vae = table(root.path(), "sbn-vae-mnist-gsb-vae-test_neg_log_likelihood");
    let rebar = at(&vae, "rebar", "z");
    assert_eq!(rebar, format!("20 epochs, paper 500; likelihood by 100 samples, paper 200; {unsaid}"));
    assert_eq!(at(&vae, "rebar", "its epochs"), "500");
    let csb = table(root.path(), "sbn-vae-mnist-gsb-cat1-epoch_s");
    assert_eq!(at(&csb, "local-expectation, 1 samples", "published"), "6.32");
    assert!(at(&csb, "local-expectation, 1 samples", "z").contains("RTX 2080 Ti"));
    let foust = table(root.path(), "sbn-vae-mnist-foust-2-test_neg_elbo");
    assert_eq!(at(&foust, "foust", "published"), "91.95");
    assert_eq!(at(&foust, "foust", "z"), "the paper does not say for how many epochs");
}

/// The same objective with the divergence in closed form is a row of the same table.
#[test]
fn the_form_of_the_divergence_does_not_split_a_table() {
    let root = tempfile::tempdir().unwrap();
    for kl in ["sampled", "analytic"] {
        write_generative(&root.path().join(kl), 0, "rodeo-2x200", "rodeo", |c, _| c["config"]["kl"] = json!(kl));
    }
    let t = table(root.path(), "sbn-vae-mnist-rodeo-2x200-frozen_neg_elbo");
    let rows: Vec<&str> = t.rows.iter().map(|r| r[1].as_str()).collect();
    assert_eq!(rows, ["0.001, kl analytic", "0.001, kl sampled"]);
}
