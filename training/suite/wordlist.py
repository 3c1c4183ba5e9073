"""Everyday words that occur in work messages; the lexicon partitions them between the splits."""


def words(text: str) -> tuple[str, ...]:
    """Return the blank-separated words of `text`, in order and with repeats."""
    return tuple(text.split())


NOUNS = words("""
    access account address agenda annex answer apple archive arrival article asset audit badge
    bakery balance banner basket battery beacon benefit bicycle blanket board boiler bonus booking
    border bottle branch bridge briefing brochure bucket budget buffer building bundle cabinet
    cable calendar camera candle canvas carpet carton catalog ceiling certificate chain chair
    change channel chart checklist cheque circuit claim client clinic closet coffee collar column
    compass concert contract copier copper corner cotton counter coupon course cover crate credit
    cushion cycle damage deadline debit decision delivery deposit design desk diagram digest dinner
    discount display document donation door draft drawer driver dryer duty edition elevator engine
    entry envelope escrow estimate event exam exhibit expense export factory feedback fence
    festival fiber filter finding flight folder forecast form fountain frame freight fridge fund
    furniture garage garden gasket gateway gear gift glass goods grant graph grill guide hammer
    handbook handle harbor harvest heater helmet hinge holiday hotel import index ink inquiry
    insurance interview invoice issue item jacket journal journey kettle keyboard kitchen label
    ladder lamp laptop launch lease lecture ledger lesson letter library license lift lock locker
    lounge lunch machine magazine mailbox manual map market meeting memo menu meter mirror mobile
    module monitor mortgage motor museum needle notebook number offer office option orchard order
    outlet oven package padlock paint paper parcel parking passport patch payment pencil pension
    permit photo pillow pipeline plan plate platform plug policy port poster pressure printer prize
    product profile program project proposal protocol pump quarter question queue quota quote radio
    railway ramp rebate receipt recipe record refund release remark rental repair report request
    research reserve result review ribbon room roster route router sample scanner schedule school
    screen script seat sensor server session sheet shelf shipment signal sink site sketch socket
    software solution spring stamp statement station stock storage story strategy studio summary
    supply survey switch table tablet target tariff tender terminal test ticket tile timer title
    token topic tower tractor trailer training transfer travel trial trolley truck tube tunnel unit
    update upgrade valve vehicle vendor venue video visit voucher wagon wallet warehouse warranty
    washer watch website wheel window workshop yard zipper
""")
