//! How the renewal of the control plane's own certificate ends.

use model::name::Name;
use runtime::drain;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_the_next_attempt() {
    // In the year 1970, so that the certificate has ended and nothing can be signed any more.
    let authority = Authority::create(&Name::new("shop").unwrap(), 0).unwrap();
    let id = SpiffeId { mesh: authority.mesh().clone(), subject: Subject::ControlPlane };
    let Request { key_pem, csr_pem } = Request::new(&id).unwrap();
    let life = Duration::from_hours(1);
    let chain_pem = authority.sign_csr(&csr_pem, &id, &Name::new(INSTANCE).unwrap(), 1_000, life).unwrap().chain_pem;
    let roots_pem = authority.roots_pem().to_owned();
    let own = Identity::new(Credentials { chain_pem, key_pem, roots_pem }).unwrap();
    let settings = Arc::new(ArcSwap::new(own.current().server_with_applicants(life).unwrap()));
    let (signal, drain) = drain::channel();
    drain.spawn(keep_renewed(
        own,
        Arc::new(authority),
        Lives { certificate: life, grace: life },
        settings,
        drain.clone(),
    ));
    // The first attempt fails at once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal.drain(Duration::from_secs(5)).await.unwrap();
}
