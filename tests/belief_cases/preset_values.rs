//! The published settings, word by word.
use crate::parsed;
use serde_json::{Value, json};

fn holds(flags: &str, want: Value) {
    let config = serde_json::to_value(parsed(flags).1.unwrap_or_else(|e| panic!("{flags}: {e}"))).unwrap();
    for (key, value) in want.as_object().unwrap() {
        assert_eq!(&config[key], value, "{flags}: {key}");
    }
}

#[test]
fn presets_hold_the_published_settings() {
    holds(
        "--preset rodeo-2x200",
        json!({
            "layers": 1, "latent_dim": 200, "categorical_dim": 2, "hidden_layers": 2, "hidden_dim": 200, "activation": "leakyrelu",
            "code": "zero-one", "prior": "uniform", "init": "glorot", "centred": false, "doubled": false, "binarisation": "dynamic",
            "kl": "sampled", "estimator": "rodeo", "tau": null, "samples": 2, "optimizer": "adam", "lr": 1e-3, "batch_size": 100,
            "epochs": null, "steps": 1_000_000,
        }),
    );
    holds("--preset rodeo-2x200 --dataset fashion-mnist", json!({ "lr": 3e-4 }));
    holds("--preset rodeo-2x200 --dataset omniglot", json!({ "lr": 1e-3 }));
    holds("--preset rodeo-2x200 --estimator relax", json!({ "tau": "0.1" }));
    let reinmax = json!({
        "hidden_layers": 2, "hidden_dim": 200, "code": "zero-one", "prior": "trained", "init": "pytorch", "doubled": true,
        "binarisation": "static", "kl": "analytic", "estimator": "reinmax", "tau": "1.1", "optimizer": "radam", "lr": 3e-4,
        "batch_size": 100, "steps": 1_000_000,
    });
    holds("--preset reinmax-2x200", reinmax.clone());
    holds("--preset reinmax-2x200 --dataset omniglot --samples 2", reinmax);
    holds("--preset reinmax-2x200 --dataset omniglot --samples 3", json!({ "tau": "1.2", "lr": 5e-4, "samples": 3 }));
    holds("--preset reinmax-2x200 --dataset mnist --samples 3", json!({ "tau": "1.1", "lr": 3e-4 }));
    let gsb = json!({
        "latent_dim": 200, "code": "plus-minus", "prior": "trained", "init": "glorot", "centred": true, "doubled": false,
        "binarisation": "static", "kl": "sampled", "estimator": "local-expectation", "samples": 1, "optimizer": "adam", "lr": 1e-4,
        "batch_size": 100, "epochs": 500, "steps": null,
    });
    for (preset, layers, hidden_layers) in [("gsb-sbn1", 1, 0), ("gsb-sbn2", 2, 0), ("gsb-vae", 1, 2)] {
        holds(&format!("--preset {preset}"), gsb.clone());
        holds(
            &format!("--preset {preset}"),
            json!({ "layers": layers, "hidden_layers": hidden_layers, "activation": "tanh" }),
        );
        holds(&format!("--preset {preset} --dataset omniglot"), json!({ "epochs": 100 }));
    }
    for (preset, hidden_layers) in [("gsb-cat1", 0), ("gsb-cat-vae", 2)] {
        let categorical = json!({ "latent_dim": 20, "categorical_dim": 10, "code": null, "hidden_layers": hidden_layers, "lr": 1e-4 });
        holds(&format!("--preset {preset}"), categorical);
    }
    for (layers, units) in [(1, 200), (2, 200), (3, 200), (5, 200), (8, 500), (20, 500)] {
        holds(
            &format!("--preset foust-{layers}"),
            json!({
                "layers": layers, "latent_dim": units, "hidden_dim": units, "hidden_layers": 2, "activation": "tanh",
                "code": "plus-minus", "prior": "trained", "centred": true, "binarisation": "static", "estimator": "foust",
                "optimizer": "sgd", "lr": 4e-4, "batch_size": 128, "epochs": 100, "steps": null,
            }),
        );
    }
}

/// The one draw of GSB's presets is that of local expectation and of drop-ins.
#[test]
fn an_estimator_that_compares_draws_has_two_at_least() {
    holds("--preset gsb-sbn1 --estimator rloo", json!({ "samples": 2 }));
    holds("--preset gsb-cat1 --estimator double-cv", json!({ "samples": 2 }));
    holds("--preset gsb-sbn1 --estimator st", json!({ "samples": 1 }));
    holds("--preset gsb-sbn1 --estimator rebar", json!({ "samples": null }));
    holds("--preset gsb-sbn1 --samples 5", json!({ "samples": 5 }));
}
