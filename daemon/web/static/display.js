// The customer's page shows what the counter shows. The countdown runs on the terminal's clock, and a code is gone within
// a second of its expiry whatever the network does.
'use strict';
(() => {
  const $ = id => document.getElementById(id);
  const words = {
    idle: ['欢迎光临', 'Welcome', ''], amount: ['请出示付款码', 'Please show your payment code', ''],
    code: ['请用钱包扫码支付', 'Scan with your wallet to pay', ''], confirm: ['请在手机上确认', 'Please confirm on your phone', 'M36 22h28v56H36zM47 70h6'],
    paid: ['支付成功', 'Payment successful', 'M29 52l14 14 28-32'], failed: ['未支付', 'Not paid', 'M35 35l30 30M65 35L35 65'],
    paused: ['暂停收款', 'Payments are paused', 'M40 33v34M60 33v34'], lost: ['请稍候', 'One moment please', 'M40 33v34M60 33v34'],
  };
  let now = { state: 'idle', shop: '' }, offset = 0, beat = Date.now(), total = 180000;
  const text = (id, s) => { if ($(id).textContent !== s) $(id).textContent = s; };

  function draw() {
    const left = now.expires_at ? Date.parse(now.expires_at) - (Date.now() + offset) : 0;
    let state = now.state;
    if (state === 'code' && (left <= 0 || !now.code_id)) state = 'amount';
    if (Date.now() - beat > 4000) state = 'lost';
    document.body.className = state === 'lost' ? 'paused' : state;
    const [zh, en, mark] = words[state] || words.idle;
    text('shop', now.shop || '');
    text('amount', state === 'idle' || state === 'paused' || state === 'lost' || !now.amount_yuan ? '' : '¥' + now.amount_yuan);
    text('word', state === 'idle' && now.shop ? now.shop : state === 'amount' && now.state === 'code' ? '二维码已过期' : zh);
    text('word-en', state === 'idle' ? '欢迎光临 · Welcome' : state === 'amount' && now.state === 'code' ? 'The code has expired' : en);
    $('mark').setAttribute('d', mark);
    if (state === 'code') {
      const src = '/display/code.svg?n=' + now.code_id;
      if ($('qr').getAttribute('src') !== src) $('qr').src = src;
      text('left', String(Math.ceil(left / 1000)));
      $('arc').style.setProperty('--gone', (276.46 * (1 - Math.min(1, left / total))).toFixed(1));
    } else $('qr').removeAttribute('src');
    text('foot', state === 'failed' ? (now.reason || '') + (now.reason_en ? ' · ' + now.reason_en : '') : state === 'idle' ? '本店支持钱包付款 · Wallet payments welcome' : '');
  }
  // Each module is a whole number of pixels, in at least 45 % of the short edge.
  function fit() {
    const img = $('qr'), side = img.naturalWidth, short = Math.min(innerWidth, innerHeight), wide = innerWidth > innerHeight * 1.25;
    if (side) img.style.width = img.style.height = Math.max(2, Math.floor(short * (wide ? .74 : .56) / side)) * side + 'px';
  }
  $('qr').addEventListener('load', fit);
  addEventListener('resize', fit);
  function set(s) {
    beat = Date.now();
    now = s;
    offset = Date.parse(s.server_time) - Date.now();
    draw();
  }
  let source = null;
  function connect() {
    if (source) source.close();
    source = new EventSource('/display/events');
    for (const name of ['snapshot', 'counter']) source.addEventListener(name, e => set(JSON.parse(e.data)));
    source.addEventListener('heartbeat', e => { beat = Date.now(); offset = Date.parse(JSON.parse(e.data).server_time) - Date.now(); });
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(connect, 1500); };
  }
  setInterval(draw, 200);
  draw();
  connect();
  if (navigator.wakeLock) navigator.wakeLock.request('screen').catch(() => {});
})();
