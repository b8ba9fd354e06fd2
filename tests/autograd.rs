//! The custom autograd function, row by row of what it promises.
use tch::{Kind, Tensor};
use thruway::autograd::Function;
#[test]
fn smoke() {
    let x = Tensor::from_slice(&[1f64, 2., -3.]).set_requires_grad(true);
    let y = Function::new("Cube")
        .inputs(&[&x])
        .save(&[&x])
        .apply(|| Ok(vec![x.pow_tensor_scalar(3)]), |b| Ok(vec![Some(b.grad(0)? * b.saved()[0].square() * 3.)]))
        .unwrap()
        .remove(0);
    y.sum(Kind::Double).f_backward().unwrap();
    assert_eq!(Vec::<f64>::try_from(x.grad()).unwrap(), [3., 12., 27.]);
}
